package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

func TestSmallestConfigHasAllDefaults(t *testing.T) {
	got := parse(t, `
		gate "www" {
		  listen = "unix:/run/fpm-gate/www.sock"
		  upstream { address = "unix:/run/php/php-fpm.sock" }
		}`)
	want := defaultConfig()
	g := defaultGate("www")
	g.Listen = netaddr.Addr{Network: "unix", Address: "/run/fpm-gate/www.sock"}
	g.Upstream.Addresses = []netaddr.Addr{{Network: "unix", Address: "/run/php/php-fpm.sock"}}
	want.Gates = []*Gate{g}
	equal(t, got, want)
	if g.Realm != "www" {
		t.Errorf("got realm %q, want the gate's name", g.Realm)
	}
}

func TestEveryKeyReachesItsField(t *testing.T) {
	got := parse(t, `
		landlock = false
		log {
		  level = "debug"
		  format = "json"
		  slow_wait = "0s"
		  slow_request = "7s"
		}
		admin {
		  listen = "127.0.0.1:9100"
		}
		memcached {
		  servers = ["10.0.0.1:11211", "unix:/run/memcached.sock", "[::1]:11211"]
		  timeout = "100ms"
		  lease = "3s"
		  key_prefix = "shop:"
		  secret = "hush"
		  quorum = true
		  max_poll_rate = 500
		  username = "gate"
		  password = "hush-hush"
		  tls {
		    ca = "/etc/ssl/ca.pem"
		    cert = "/etc/ssl/gate.pem"
		    key = "/etc/ssl/gate.key"
		  }
		}
		gate "www" {
		  listen = "systemd:fpm-gate-www.socket"
		  realm = "shop"
		  max_conns = 1000
		  max_params = 65536
		  head_timeout = "1500ms"
		  idle_timeout = "2m"
		  upstream {
		    addresses = ["php-1:9000", "PHP-2:09000"]
		    connect_timeout = "2s"
		    max_connections = 10
		    queue_timeout = "3s"
		    unreachable_wait = "2s"
		    reuse = "0s"
		    idle = "0s"
		    ping_path = "/ping"
		    status_path = "/status"
		    probe_interval = "1s"
		  }
		  session {
		    application = "moodle"
		    cookies = ["my_app", "__Host-SID"]
		    id_pattern = ""
		    format = "laravel"
		    keys = ["0123456789abcdef"]
		    query = ["PHPSESSID"]
		    param = "SESSION_ID"
		    handler = "files"
		    save_path = "2;0600;/var/lib/php/sessions"
		    key_prefix = "shop."
		    max_input_vars = 5000
		    watch = "files"
		    locks = true
		    open_within = "0s"
		  }
		  lock {
		    store = "memcached"
		    max_wait = "0s"
		    expiry = "5m"
		    max_waiters = 1
		    on_max_wait = "pass"
		    on_rotation = "pass"
		    on_expiry = "abort"
		    terminate_grace = "500ms"
		    on_abandon = "terminate"
		    on_store_failure = "reject"
		    abandon_after = "0s"
		    release_on = "headers"
		    status = 429
		    retry_after = "1m"
		    server_timing = true
		    observe = true
		  }
		}`)
	want := &Config{
		Log:   Log{Level: "debug", Format: FormatJSON, SlowRequest: 7 * time.Second},
		Admin: &Admin{netaddr.Addr{Network: "tcp", Address: "127.0.0.1:9100"}, 0o660, true},
		Memcached: &Memcached{
			Servers:     []netaddr.Addr{{Network: "tcp", Address: "10.0.0.1:11211"}, {Network: "unix", Address: "/run/memcached.sock"}, {Network: "tcp", Address: "[::1]:11211"}},
			Timeout:     100 * time.Millisecond,
			Lease:       3 * time.Second,
			KeyPrefix:   "shop:",
			Secret:      "hush",
			Quorum:      true,
			MaxPollRate: 500,
			Username:    "gate",
			Password:    "hush-hush",
			TLS:         &TLS{CA: "/etc/ssl/ca.pem", Cert: "/etc/ssl/gate.pem", Key: "/etc/ssl/gate.key"},
		},
		Gates: []*Gate{{
			Name:        "www",
			Listen:      netaddr.Addr{Network: "systemd", Address: "fpm-gate-www.socket"},
			ListenMode:  0o660,
			Realm:       "shop",
			MaxConns:    1000,
			MaxParams:   64 << 10,
			HeadTimeout: 1500 * time.Millisecond,
			IdleTimeout: 2 * time.Minute,
			Upstream: Upstream{
				Addresses:       []netaddr.Addr{{Network: "tcp", Address: "php-1:9000"}, {Network: "tcp", Address: "php-2:9000"}},
				ConnectTimeout:  2 * time.Second,
				MaxConnections:  10,
				QueueTimeout:    3 * time.Second,
				UnreachableWait: 2 * time.Second,
				PingPath:        "/ping",
				StatusPath:      "/status",
				ProbeInterval:   time.Second,
			},
			Session: Session{
				Application:  "moodle",
				Cookies:      []string{"my_app", "__Host-SID"},
				Format:       FormatLaravel,
				Keys:         [][]byte{[]byte("0123456789abcdef")},
				Query:        []string{"PHPSESSID"},
				Param:        "SESSION_ID",
				Handler:      HandlerFiles,
				SavePath:     "/var/lib/php/sessions",
				Depth:        2,
				KeyPrefix:    "shop.",
				Watch:        WatchFiles,
				Locks:        true,
				LocksGiven:   true,
				MaxInputVars: 5000,
			},
			Lock: Lock{
				Store:          StoreMemcached,
				Expiry:         5 * time.Minute,
				MaxWaiters:     1,
				OnMaxWait:      OnMaxWaitPass,
				OnRotation:     OnRotationPass,
				OnExpiry:       OverdueAbort,
				TerminateGrace: 500 * time.Millisecond,
				OnAbandon:      OverdueTerminate,
				OnStoreFailure: OnStoreFailureReject,
				ReleaseOn:      ReleaseOnHeaders,
				Status:         429,
				RetryAfter:     time.Minute,
				ServerTiming:   true,
				Observe:        true,
			},
		}},
	}
	equal(t, got, want)
}

func TestRouteLaysItsKeysOverTheLockOfItsGate(t *testing.T) {
	got := parse(t, `
		gate "www" {
		  route "api" {
		    path     = ["/", "/cart", "/api/*", "/v2/**"]
		    methods  = ["GET", "M-SEARCH"]
		    host     = ["Shop.Example.org", "127.0.0.1"]
		    mode     = "read"
		    max_wait = "1s"
		    observe  = false
		  }
		  route "rest" {}
		  lock {
		    store    = "local"
		    max_wait = "5s"
		    expiry   = "20s"
		    observe  = true
		  }
		  listen = "127.0.0.1:9001"
		  upstream { address = "127.0.0.1:9000" }
		}`).Gates[0]
	lock := defaultGate("").Lock
	lock.MaxWait, lock.Expiry, lock.Observe = 5*time.Second, 20*time.Second, true
	equal(t, got.Lock, lock)

	rest := &Route{Name: "rest", Mode: ModeExclusive, Lock: lock}
	lock.MaxWait, lock.Observe = time.Second, false
	api := &Route{
		Name:    "api",
		Path:    []string{"/", "/cart", "/api/*", "/v2/**"},
		Methods: []string{"GET", "M-SEARCH"},
		Host:    []string{"shop.example.org", "127.0.0.1"},
		Mode:    ModeRead,
		Lock:    lock,
	}
	equal(t, got.Routes, []*Route{api, rest})
}

func TestListenOnUnixSocketTakesModeAndOwner(t *testing.T) {
	got := parse(t, `
		admin {
		  listen      = "unix:/run/admin.sock"
		  listen_mode = "600"
		}
		gate "www" {
		  listen       = "unix:///run/www.sock"
		  listen_mode  = "0666"
		  listen_owner = "www-data"
		  listen_group = "33"
		  upstream { address = "127.0.0.1:9000" }
		}`)
	equal(t, got.Admin, &Admin{netaddr.Addr{Network: "unix", Address: "/run/admin.sock"}, 0o600, true})
	g := got.Gates[0]
	if g.Listen.String() != "unix:/run/www.sock" || g.ListenMode != 0o666 || g.ListenOwner != "www-data" || g.ListenGroup != "33" {
		t.Errorf("got %v %o %q %q", g.Listen, g.ListenMode, g.ListenOwner, g.ListenGroup)
	}
}

func TestSocketPathFitsIntoItsAddress(t *testing.T) {
	longest := "unix:/" + strings.Repeat("a", 106)
	if _, err := Default(longest, "127.0.0.1:9000"); err != nil {
		t.Errorf("107 bytes: got %v", err)
	}
	if _, err := Default(longest+"a", "127.0.0.1:9000"); err == nil {
		t.Error("108 bytes: got no error")
	}
}

func TestSavePathIsReadAsItsHandlerReadsIt(t *testing.T) {
	for _, c := range []struct {
		name, handler, savePath string
		folder                  string
		depth                   int
		servers                 []netaddr.Addr
	}{
		{"files without a path", "files", "", "", 0, nil},
		{"a folder", "files", "/tmp", "/tmp", 0, nil},
		{"a folder with depth", "files", "21;/tmp", "/tmp", 21, nil},
		{"a folder with depth and mode", "files", "1;0600;/tmp", "/tmp", 1, nil},
		{"servers", "memcached", "a:11211, b:11212", "a:11211, b:11212", 0,
			[]netaddr.Addr{{Network: "tcp", Address: "a:11211"}, {Network: "tcp", Address: "b:11212"}}},
		{"sockets", "memcached", "/run/m.sock,/run/n.sock:0", "/run/m.sock,/run/n.sock:0", 0,
			[]netaddr.Addr{{Network: "unix", Address: "/run/m.sock"}, {Network: "unix", Address: "/run/n.sock"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := fmt.Sprintf("session {\nhandler = %q\nsave_path = %q\n}", c.handler, c.savePath)
			want := defaultGate("www").Session
			want.Handler, want.SavePath, want.Depth, want.Servers = c.handler, c.folder, c.depth, c.servers
			equal(t, parse(t, gate(src)).Gates[0].Session, want)
		})
	}
}

func TestValuesComeFromTheEnvironment(t *testing.T) {
	t.Setenv("FPM_GATE_TEST_POOL", "shop")
	t.Setenv("FPM_GATE_TEST_CONNS", "12")
	t.Setenv("FPM_GATE_TEST_OBSERVE", "true")
	t.Setenv("FPM_GATE_TEST_EMPTY", "")
	g := parse(t, `
		gate "www" {
		  listen     = "unix:/run/${env("FPM_GATE_TEST_POOL")}.sock"
		  realm      = env("FPM_GATE_TEST_UNSET", "fallback")
		  max_conns  = env("FPM_GATE_TEST_CONNS")
		  max_params = env("FPM_GATE_TEST_UNSET", "8KiB")
		  upstream {
		    address   = "127.0.0.1:9000"
		    ping_path = env("FPM_GATE_TEST_EMPTY", "/not-this")
		  }
		  lock { observe = env("FPM_GATE_TEST_OBSERVE") }
		}`).Gates[0]
	if got, want := g.Listen.Address, "/run/shop.sock"; got != want {
		t.Errorf("listen: got %q, want %q", got, want)
	}
	if got, want := g.Realm, "fallback"; got != want {
		t.Errorf("realm: got %q, want %q", got, want)
	}
	if g.MaxConns != 12 || g.MaxParams != 8<<10 || g.Upstream.PingPath != "" || !g.Lock.Observe {
		t.Errorf("got %d, %d, %q, %t", g.MaxConns, g.MaxParams, g.Upstream.PingPath, g.Lock.Observe)
	}
}

func TestDefaultIsAGateWithAllDefaults(t *testing.T) {
	got, err := Default("127.0.0.1:9001", "unix:/run/php.sock")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, parse(t, `
		gate "default" {
		  listen = "127.0.0.1:9001"
		  upstream { address = "unix:/run/php.sock" }
		}`))
}

func TestDefaultReportsBothAddresses(t *testing.T) {
	_, err := Default("9000", "${env(\"HOME\")}\n\"\\")
	var wrong *Error
	if !errors.As(err, &wrong) {
		t.Fatalf("got %v, want an *Error", err)
	}
	got := strings.Join(wrong.Lines(), "\n")
	want := `--listen and --upstream:2: listen must be "unix:/path", "host:port" or "systemd:NAME"; got "9000": The host is missing: use "127.0.0.1:9000" for this machine only, or "0.0.0.0:9000" for all of its addresses.
--listen and --upstream:4: address must be "unix:/path" or "host:port"; got "${env(\"HOME\")}\n\"\\"`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLoadReadsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fpm-gate.hcl")
	if err := os.WriteFile(file, []byte(gate("")), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil || c.Gates[0].Name != "www" {
		t.Errorf("got %v, %v", c, err)
	}
	_, err = Load(file + ".gone")
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "read config: ") {
		t.Errorf("no file: got %v", err)
	}
}

func TestFileBeyondTheBoundsIsRefusedUnparsed(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"too long", strings.Repeat("#", maxFileSize+1), "a config must be at most 128KiB; this file has 131073 bytes"},
		{"nested too deep", "a = " + strings.Repeat("[", 1000), "brackets must be nested at most 100 deep; this file has 1000"},
		{"templates nested too deep", "a = " + strings.Repeat(`"${`, 1000), "brackets must be nested at most 100 deep; this file has 1000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.src), "x.hcl")
			if want := "x.hcl:1: " + c.want; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// parse parses a config that must be valid and give no warning.
func parse(t *testing.T, src string) *Config {
	t.Helper()
	c, err := Parse([]byte(src), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range c.Warnings.Lines() {
		t.Errorf("warning: %s", line)
	}
	return c
}

// gate returns a config of one gate with extra lines.
func gate(more string) string {
	return `gate "www" {
		listen = "unix:/run/www.sock"
		upstream { address = "127.0.0.1:9000" }
		` + more + `
	}`
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", dump(got), dump(want))
	}
}
