package config

import (
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// webServerTimeout is nginx's default fastcgi_read_timeout. nginx answers 504 to a request that waits longer in the
// gate.
const webServerTimeout = 60 * time.Second

// check judges the file as a whole, after all its blocks.
func (f *file) check(b *found) {
	if len(f.Gates) == 0 && !b.d.broken {
		b.fail("", `Add gate "www" { … }, one for each PHP-FPM pool.`, "the config needs at least one gate")
	}
	for _, dial := range f.dials {
		if own, is := f.listening(dial.address, leadsTo); is {
			b.d.fail(dial.at, "The gate would connect to itself.",
				"upstream must not be an address that this config listens on; got %q%s", dial.address, own.as(dial.address))
		}
	}
	f.checkSecret(b)
	f.checkRealms(b)
}

// checkRealms warns about gates of one realm with different lock stores: requests of one session to both gates do not
// exclude each other.
func (f *file) checkRealms(b *found) {
	first := make(map[string]*Gate)
	for _, g := range f.Gates {
		other := first[g.Realm]
		if other == nil {
			first[g.Realm] = g
			continue
		}
		if other.Lock.Store != g.Lock.Store && other.Name != g.Name { // a name given twice is an error anyway
			b.warn("", "Use one store for both, or a different realm for each.",
				"gates %q and %q have the realm %q but different stores: they run requests of one session concurrently",
				other.Name, g.Name, g.Realm)
		}
	}
}

// checkSecret warns about a hash that anyone can compute: a reader of memcached could test guesses of session ids.
func (f *file) checkSecret(b *found) {
	for _, g := range f.Gates {
		if m := f.Memcached; g.Lock.Store == StoreMemcached && m != nil && m.Secret == "" {
			b.in("memcached").warn("secret", "Set it to one long random string, the same on all hosts.",
				"secret is empty: anyone who can read memcached can test guesses of session ids")
			return
		}
	}
}

// checkListen judges the listen keys of a gate or of admin.
func (f *file) checkListen(b *found, listen netaddr.Addr) {
	b.need("listen", `For example: listen = "unix:/run/fpm-gate/www.sock".`)
	if listen == (netaddr.Addr{}) {
		return
	}
	if first, taken := f.listening(listen, excludes); taken {
		b.fail("listen", "", "listen must differ from all others; got %q%s", listen, first.as(listen))
	} else {
		f.listens = append(f.listens, place{listen, b.at("listen")})
	}
	for _, key := range []string{"listen_mode", "listen_owner", "listen_group"} {
		if b.has(key) && listen.Network != "unix" {
			b.warn(key, "", "%s has no effect on %q: it applies to unix sockets only", key, listen)
		}
	}
}

// checkAdmin judges the admin's listen. There is no password: anyone who can connect can see paths and break locks.
func (f *file) checkAdmin(b *found, a *Admin) {
	f.checkListen(b, a.Listen)
	if !a.Listen.IsLoopback() {
		b.warn("listen", `Use "unix:/run/fpm-gate/admin.sock", guarded by its mode, or "127.0.0.1:9180".`,
			"listen of the admin is reachable from other hosts: anyone who can connect to %s can break locks", a.Listen)
	}
	// Connecting to a unix socket requires write permission.
	if a.Listen.Network == "unix" && a.ListenMode&0o002 != 0 {
		b.warn("listen_mode", `Use "0660" to admit only its owner and group.`,
			"listen_mode of the admin lets every user of this machine connect to %s and break locks; got \"%04o\"",
			a.Listen, a.ListenMode)
	}
}

// checkMemcached judges the servers together. Whether they can be reached only check --probe finds out.
func checkMemcached(b *found, m *Memcached) {
	b.need("servers", `For example: servers = ["10.0.0.1:11211"].`)
	if b.has("servers") && len(m.Servers) == 0 {
		b.fail("servers", "", "servers must name at least one server; got an empty list")
	}
	// With two servers, or an even number, the failure of half of them leaves no majority, so one less is as good.
	if n := len(m.Servers); m.Quorum && n > 0 && (n < 3 || n%2 == 0) {
		b.fail("servers", "A majority must be able to agree.",
			"quorum needs an odd number of servers, at least 3; got %d", n)
	}
	needBoth(b, "username", m.Username, "password", m.Password)
	remote := slices.ContainsFunc(m.Servers, func(a netaddr.Addr) bool { return !a.IsLoopback() })
	if m.Password != "" && m.TLS == nil && remote {
		b.warn("password", `For example: tls { ca = "/etc/ssl/certs/memcached.pem" }.`,
			"password is sent in clear text; add a tls block to encrypt it")
	}
	// A lease is renewed every TTL/3, and a renewal must end before the next one is due.
	if b.valid("timeout", "lease") && m.Timeout >= m.Lease/3 {
		b.fail("timeout", "A lease is renewed every lease/3.",
			"timeout must be shorter than a third of lease (%s); got %q",
			durationText(m.Lease), durationText(m.Timeout))
	}
}

// needBoth complains if one of two keys has a value and the other is empty.
func needBoth(b *found, one, its, other, others string) {
	switch {
	case its != "" && others == "" && b.valid(other):
		b.fail(one, "", "%s requires %s", one, other)
	case its == "" && others != "" && b.valid(one):
		b.fail(other, "", "%s requires %s", other, one)
	}
}

// checkGate judges a gate after its blocks. A long head_timeout lets clients hold connections without a request.
func (f *file) checkGate(b *found, g *Gate) {
	f.checkListen(b, g.Listen)
	b.need("upstream", `For example: upstream { address = "unix:/run/php/php-fpm.sock" }.`)
	if g.HeadTimeout > webServerTimeout {
		b.warn("head_timeout", "A web server sends the params at once.",
			"head_timeout of %s keeps silent connections open for long", durationText(g.HeadTimeout))
	}
	checkWait(b.in("lock"), b.in("upstream"), g.Lock, g.Upstream)
}

// checkRoute warns about a route that no request can reach. catchAll is the gate's first route that matches every
// request, once there is one.
func checkRoute(b *found, r *Route, catchAll **Route) {
	switch {
	case *catchAll != nil:
		b.warn("", "The first route that matches applies.",
			"route %q is never reached: route %q before it matches every request", r.Name, (*catchAll).Name)
	case len(r.Path)+len(r.Methods)+len(r.Host) == 0 && b.valid("path", "methods", "host"):
		*catchAll = r
	}
}

// checkWait warns about waits longer than the web server's timeout. lock is the block with the lock's keys, upstream
// the one with queue_timeout; for a route, both are the route.
func checkWait(lock, upstream *found, l Lock, u Upstream) {
	const hint = "nginx gives up after 60s unless fastcgi_read_timeout is set."
	where, key := lock, "max_wait"
	if !lock.has(key) {
		where, key = upstream, "queue_timeout"
	}
	switch {
	case !where.has(key):
	case l.MaxWait >= webServerTimeout:
		where.warn(key, hint, "max_wait of %s is longer than web servers wait", durationText(l.MaxWait))
	case l.MaxWait+u.QueueTimeout >= webServerTimeout:
		where.warn(key, hint, "max_wait and queue_timeout together, %s and %s, are longer than web servers wait",
			durationText(l.MaxWait), durationText(u.QueueTimeout))
	}
}

// checkUpstream judges the addresses, and notes them for the check that none of them is a gate's own.
func (f *file) checkUpstream(b *found, u *Upstream) {
	if !b.has("addresses") {
		b.need("address", `For example: address = "unix:/run/php/php-fpm.sock".`)
	}
	if b.has("address") && b.has("addresses") {
		b.fail("addresses", "", "upstream takes either address or addresses; got both")
		return
	}
	key := "address"
	if b.has("addresses") {
		key = "addresses"
		if len(u.Addresses) == 0 {
			b.fail(key, "", "addresses must name at least one address; got an empty list")
		}
	}
	if b.has("unreachable_wait") && u.UnreachableWait > u.QueueTimeout {
		b.warn("unreachable_wait", "", "no request waits for longer than queue_timeout (%s); got %q",
			durationText(u.QueueTimeout), durationText(u.UnreachableWait))
	}
	// The gates that follow may listen on one, so file.check compares them.
	for _, a := range u.Addresses {
		f.dials = append(f.dials, place{a, b.at(key)})
	}
}

// checkSession judges where the id is found and where sessions are kept.
func checkSession(b *found, s *Session) {
	if len(s.Cookies)+len(s.Query) == 0 && s.Param == "" && b.valid("cookies", "query", "param") {
		b.fail("cookies", "Without one, no request has a session and the gate locks nothing.",
			"session needs at least one of cookies, query and param; got none")
	}
	if b.valid("handler", "save_path") {
		checkSavePath(b, s)
	}
	// An application may have given locks already.
	s.LocksGiven = s.LocksGiven || b.has("locks")
	if b.valid("handler", "save_path", "watch") {
		checkWatch(b, s)
	}
	checkCookies(b, s)
}

// checkWatch complains about a place to be watched that the file does not give.
func checkWatch(b *found, s *Session) {
	if (s.Watch == WatchFiles || s.Watch == WatchMemcached) && (s.Handler != s.Watch || s.SavePath == "") {
		b.fail("watch", "", `watch = %q needs handler = %[1]q and its save_path`, s.Watch)
	}
}

// checkCookies judges the keys that find an id in a cookie's value.
func checkCookies(b *found, s *Session) {
	switch {
	case !b.valid("application", "format", "keys"):
	case s.Format == FormatLaravel && len(s.Keys) == 0:
		key := "format"
		for _, given := range []string{"application", "keys"} {
			if b.has(given) {
				key = given
			}
		}
		b.fail(key, `For example: keys = [env("APP_KEY")], with APP_KEY of the application's .env.`,
			"the cookies of laravel need keys to be opened")
	case s.Format != FormatLaravel && len(s.Keys) > 0:
		b.warn("keys", "", `keys have no effect without format = "laravel"`)
	}
	if !b.valid("cookies", "id_pattern") || s.IDPattern != nil || s.Format != FormatPlain {
		return
	}
	for _, name := range s.Cookies {
		const least = 3
		if strings.ContainsAny(name, "*?") && fixedLetters(name) < least {
			b.fail("cookies", "Other cookies, such as one with a language, would be taken for sessions: all visitors with the"+
				" same one would wait for each other.",
				"each element of cookies must have %d fixed letters or more, or id_pattern must say what an id looks like;"+
					" got %q", least, name)
		}
	}
}

// checkSavePath parses save_path as the handler does.
func checkSavePath(b *found, s *Session) {
	given, form, err := s.SavePath, "", error(nil)
	switch {
	case s.Handler == HandlerAny && given != "":
		b.fail("save_path", "", `save_path needs handler = "files" or "memcached"; got handler = "any"`)
	case s.Handler == HandlerMemcached && given == "":
		b.fail("handler", "", `handler = "memcached" needs save_path, the servers as in PHP's session.save_path`)
	case given == "":
	case s.Handler == HandlerFiles:
		form = `a folder such as "/var/lib/php/sessions", or "2;/path" for depth 2`
		s.SavePath, s.Depth, err = savePathFolder(given)
	case s.Handler == HandlerMemcached:
		form = `"host:port" or the path of a socket, or several of them separated by commas`
		s.Servers, err = savePathServers(given)
	}
	if err != nil {
		fault := newFault(cty.StringVal(given), err, form)
		if b.hides["save_path"] {
			fault = fault.withoutValue()
		}
		b.fail("save_path", "", "save_path of the handler %s %s", s.Handler, fault.text)
	}
}

func (f *file) checkStore(b *found, l *Lock) {
	if l.Store == StoreMemcached && f.Memcached == nil && !b.d.broken {
		b.fail("store", `For example: memcached { servers = ["10.0.0.1:11211"] }, outside the gates.`,
			`store = "memcached" needs a memcached block`)
	}
}
