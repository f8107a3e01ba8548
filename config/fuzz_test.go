package config

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// FuzzParse holds Parse to two promises: it does not panic, and what it returns without an error
// can be used as it stands. Run it with -fuzzminimizetime=10x: making inputs smaller takes go test
// longer here than finding them.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/reports/*.hcl")
	for _, file := range append(files, "fpm-gate.hcl") {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte(gate(`session { handler = "files"` + "\n" + `save_path = "2;/tmp" }`)))
	f.Add([]byte(gate(`lock { max_wait = "0s"` + "\n" + `}` + "\n" + `route "a" { path = ["/a/*"] }`)))
	f.Fuzz(func(t *testing.T, src []byte) {
		c, err := Parse(src, "fuzz.hcl")
		if err == nil {
			checkInvariants(t, c)
			checkReport(t, c.Warnings)
			return
		}
		var wrong *Error
		if !errors.As(err, &wrong) || wrong.errors() == 0 {
			t.Fatalf("got %T without errors: %v", err, err)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("got more than a line: %q", err)
		}
		checkReport(t, wrong.Report)
	})
}

func checkReport(t *testing.T, r Report) {
	if err := r.Write(io.Discard, 80, true); err != nil {
		t.Errorf("write: %v", err)
	}
	if got, want := len(r.Lines()), len(r.diags); got != want {
		t.Errorf("got %d lines, want %d", got, want)
	}
}

// checkInvariants checks what the docs of Config promise, without using the code that ensures it.
func checkInvariants(t *testing.T, c *Config) {
	t.Helper()
	is := func(ok bool, promise string) {
		t.Helper()
		if !ok {
			t.Errorf("not so: %s\n%s", promise, dump(c))
		}
	}
	is(len(c.Gates) > 0, "there is a gate")
	is(c.Log.SlowWait >= 0, "slow_wait is not negative")
	is(c.Log.SlowRequest >= 0, "slow_request is not negative")
	listens := map[netaddr.Addr]bool{}
	if c.Admin != nil {
		is(dialable(c.Admin.Listen), "admin's listen is an address")
		listens[c.Admin.Listen] = true
	}
	if m := c.Memcached; m != nil {
		is(allDialable(m.Servers), "servers are addresses")
		is(m.Lease >= 3*time.Second && m.Timeout > 0 && m.Timeout < m.Lease/3, "a lease outlives its renewal")
		is(m.KeyPrefix != "" && len(m.KeyPrefix) <= 100, "a key has a prefix")
		is((m.Username == "") == (m.Password == ""), "a user has a password")
		is(m.TLS == nil || (m.TLS.Cert == "") == (m.TLS.Key == ""), "a certificate has its key")
		is(!m.Quorum || len(m.Servers) >= 3 && len(m.Servers)%2 == 1, "a quorum can be had")
	}
	names := map[string]bool{}
	for _, g := range c.Gates {
		is(g.Name != "" && !names[g.Name], "gates have names of their own")
		is(!listens[g.Listen], "gates listen on addresses of their own")
		names[g.Name], listens[g.Listen] = true, true
		checkGateInvariants(is, c, g)
	}
	for _, g := range c.Gates {
		for _, a := range g.Upstream.Addresses {
			is(!listens[a], "no gate is its own upstream")
		}
	}
}

func checkGateInvariants(is func(bool, string), c *Config, g *Gate) {
	is(dialable(g.Listen) || g.Listen.Network == "systemd" && g.Listen.Address != "", "listen is an address")
	is(g.ListenMode <= 0o777 && g.Realm != "", "mode and realm are set")
	is(g.MaxConns >= 0 && g.MaxParams > 0 && g.HeadTimeout > 0 && g.IdleTimeout > 0, "limits are positive")
	u, s := g.Upstream, g.Session
	is(allDialable(u.Addresses), "upstreams are addresses")
	is(u.ConnectTimeout > 0 && u.QueueTimeout > 0 && u.ProbeInterval > 0, "timeouts are positive")
	is(u.MaxConnections >= 0 && u.Reuse >= 0 && u.Idle >= 0, "pool limits are not negative")
	is(len(s.Cookies)+len(s.Query)+len(s.Param) > 0, "a session can be found")
	for _, name := range slices.Concat(s.Cookies, s.Query) {
		is(name != "" && !strings.ContainsAny(name, "=,;.[ \t\r\n\013\014\x00"), "PHP takes each session name")
	}
	is(s.Format == FormatPlain || s.Format == FormatLaravel && len(s.Keys) > 0, "there are keys for the format")
	for _, k := range s.Keys {
		is(len(k) == 16 || len(k) == 32, "a key is one of AES")
	}
	is(s.Application == "" || slices.Contains(applicationNames(), s.Application), "the application is known")
	switch s.Handler {
	case HandlerAny:
		is(s.SavePath == "", "any handler has no save_path")
	case HandlerFiles:
		is(s.SavePath == "" || strings.HasPrefix(s.SavePath, "/"), "save_path is a folder")
	default:
		is(allDialable(s.Servers), "save_path has servers")
	}
	is(s.OpenWithin >= 0 && s.Depth >= 0, "open_within and depth are not negative")
	checkLockInvariants(is, c, g.Lock)
	names := map[string]bool{}
	for _, r := range g.Routes {
		is(r.Name != "" && !names[r.Name], "routes have names of their own")
		names[r.Name] = true
		is(r.Lock.Store == g.Lock.Store, "a route has the store of its gate")
		is(slices.Contains([]string{ModeExclusive, ModeRead, ModeOff}, r.Mode), "mode is known")
		for _, p := range r.Path {
			is(strings.HasPrefix(p, "/"), "patterns are absolute")
			is(!strings.Contains(strings.TrimSuffix(strings.TrimSuffix(p, "*"), "*"), "*"), "* stands at the end")
		}
		checkLockInvariants(is, c, r.Lock)
	}
}

func checkLockInvariants(is func(bool, string), c *Config, l Lock) {
	is(l.Store == StoreLocal || l.Store == StoreMemcached && c.Memcached != nil, "the store is there")
	is(l.MaxWait >= 0 && l.Expiry > 0 && l.AbandonAfter >= 0 && l.MaxWaiters > 0, "limits of locks are sane")
	is(l.OnMaxWait != "" && l.OnRotation != "" && l.OnExpiry != "" && l.OnAbandon != "" && l.OnStoreFailure != "" && l.ReleaseOn != "", "choices are made")
	is(l.Status >= 400 && l.Status <= 599, "status is an error's")
	is(l.RetryAfter >= time.Second && l.RetryAfter%time.Second == 0, "Retry-After has whole seconds")
}

func allDialable(as []netaddr.Addr) bool {
	return len(as) > 0 && !slices.ContainsFunc(as, func(a netaddr.Addr) bool { return !dialable(a) })
}

// dialable reports whether the address is unix or tcp and parses to itself.
func dialable(a netaddr.Addr) bool {
	again, err := dialAddress.parse(a.String())
	return err == nil && again == a && (a.Network == "unix" || a.Network == "tcp")
}
