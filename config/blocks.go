package config

import (
	"time"

	"github.com/hashicorp/hcl/v2"
)

// file is a config being decoded, with what its checks must remember from block to block.
type file struct {
	*Config
	listens map[Address]hcl.Range // by address to listen on: its place in the file
	dials   []place               // all upstream addresses
}

// place is an address and its place in the file.
type place struct {
	address Address
	at      hcl.Range
}

func newFile() *file {
	return &file{Config: defaultConfig(), listens: map[Address]hcl.Range{}}
}

// block returns the whole file, the outermost block. The tables from here on define the format: each key, where its
// value is stored and what it must be. Keys and blocks are decoded in the order of the tables, not of the file.
func (f *file) block() block {
	return block{
		blocks: []child{
			{"log", unnamed, func(string) block { return logBlock(&f.Log) }},
			{"admin", unnamed, func(string) block {
				f.Admin = defaultAdmin()
				return f.adminBlock(f.Admin)
			}},
			{"memcached", unnamed, func(string) block {
				f.Memcached = defaultMemcached()
				return memcachedBlock(f.Memcached)
			}},
			{"gate", named, func(name string) block {
				g := defaultGate(name)
				f.Gates = append(f.Gates, g)
				return f.gateBlock(g)
			}},
		},
		check: f.check,
	}
}

func logBlock(l *Log) block {
	return block{keys: []key{
		{"level", one(&l.Level, choice("trace", "debug", "info", "warn", "error"))},
		{"format", one(&l.Format, choice(FormatText, FormatJSON))},
		{"slow_wait", one(&l.SlowWait, atLeast(0))},
	}}
}

func (f *file) adminBlock(a *Admin) block {
	return block{
		keys: []key{
			{"listen", one(&a.Listen, dialAddress)},
			{"listen_mode", one(&a.ListenMode, fileMode)},
			{"pprof", yes(&a.Pprof)},
		},
		check: func(b *found) { f.checkAdmin(b, a) },
	}
}

func memcachedBlock(m *Memcached) block {
	return block{
		keys: []key{
			{"servers", many(&m.Servers, dialAddress)},
			{"timeout", one(&m.Timeout, atLeast(time.Millisecond))},
			{"lease", one(&m.Lease, between(3*time.Second, time.Hour))},
			{"key_prefix", one(&m.KeyPrefix, keyPrefix)},
			{"secret", one(&m.Secret, text)},
			{"quorum", yes(&m.Quorum)},
			{"max_poll_rate", count(&m.MaxPollRate, 1, unbounded)},
			{"username", one(&m.Username, credential)},
			{"password", one(&m.Password, credential)},
		},
		blocks: []child{{"tls", unnamed, func(string) block {
			m.TLS = new(TLS)
			return tlsBlock(m.TLS)
		}}},
		check: func(b *found) { checkMemcached(b, m) },
	}
}

func tlsBlock(t *TLS) block {
	return block{
		keys: []key{
			{"ca", one(&t.CA, fileName)},
			{"cert", one(&t.Cert, fileName)},
			{"key", one(&t.Key, fileName)},
		},
		check: func(b *found) { needBoth(b, "cert", t.Cert, "key", t.Key) },
	}
}

func (f *file) gateBlock(g *Gate) block {
	var catchAll *Route
	return block{
		keys: []key{
			{"listen", one(&g.Listen, listenAddress)},
			{"listen_mode", one(&g.ListenMode, fileMode)},
			{"listen_owner", one(&g.ListenOwner, account)},
			{"listen_group", one(&g.ListenGroup, account)},
			{"realm", one(&g.Realm, realm)},
			{"max_conns", count(&g.MaxConns, 0, unbounded)},
			{"max_params", size(&g.MaxParams, 4<<10, 64<<20)},
			{"head_timeout", one(&g.HeadTimeout, atLeast(time.Millisecond))},
			{"idle_timeout", one(&g.IdleTimeout, atLeast(time.Millisecond))},
		},
		blocks: []child{
			{"upstream", unnamed, func(string) block { return f.upstreamBlock(&g.Upstream) }},
			{"session", unnamed, func(string) block { return sessionBlock(g) }},
			{"lock", unnamed, func(string) block { return f.lockBlock(&g.Lock) }},
			{"route", named, func(name string) block {
				r := defaultRoute(name, g)
				g.Routes = append(g.Routes, r)
				return routeBlock(r, g, &catchAll)
			}},
		},
		check: func(b *found) { f.checkGate(b, g) },
	}
}

func (f *file) upstreamBlock(u *Upstream) block {
	return block{
		keys: []key{
			{"address", first(&u.Addresses, dialAddress)},
			{"addresses", many(&u.Addresses, dialAddress)},
			{"connect_timeout", one(&u.ConnectTimeout, atLeast(time.Millisecond))},
			{"max_connections", count(&u.MaxConnections, 0, unbounded)},
			{"queue_timeout", one(&u.QueueTimeout, atLeast(time.Millisecond))},
			{"unreachable_wait", one(&u.UnreachableWait, atLeast(0))},
			{"reuse", one(&u.Reuse, atLeast(0))},
			{"idle", one(&u.Idle, atLeast(0))},
			{"ping_path", one(&u.PingPath, pagePath)},
			{"status_path", one(&u.StatusPath, pagePath)},
			{"probe_interval", one(&u.ProbeInterval, atLeast(100*time.Millisecond))},
		},
		check: func(b *found) { f.checkUpstream(b, u) },
	}
}

func sessionBlock(g *Gate) block {
	s := &g.Session
	return block{
		keys: []key{
			{"application", application(g)}, // first: the other keys, and the block lock, win
			{"cookies", many(&s.Cookies, cookieName)},
			{"id_pattern", one(&s.IDPattern, idPattern)},
			{"format", one(&s.Format, choice(FormatPlain, FormatLaravel))},
			{"keys", appKeys(&s.Keys)},
			{"query", many(&s.Query, sessionName)},
			{"param", one(&s.Param, paramName)},
			{"handler", one(&s.Handler, handlerName)},
			{"save_path", one(&s.SavePath, text)}, // read by checkSession, once the handler is known
			{"key_prefix", one(&s.KeyPrefix, sessionKeyPrefix)},
			{"watch", one(&s.Watch, choice(WatchAuto, WatchWorkers, WatchFiles, WatchMemcached, WatchNone))},
			{"locks", yes(&s.Locks)},
			{"max_input_vars", count(&s.MaxInputVars, 1, 1_000_000)},
			{"open_within", one(&s.OpenWithin, atLeast(0))},
		},
		check: func(b *found) { checkSession(b, s) },
	}
}

func (f *file) lockBlock(l *Lock) block {
	store := key{"store", one(&l.Store, choice(StoreLocal, StoreMemcached))}
	return block{
		keys:  append([]key{store}, lockKeys(l)...),
		check: func(b *found) { f.checkStore(b, l) },
	}
}

// maxTerminateGrace leaves the time to end a worker before the gate gives up, 2 s after the expiry.
const maxTerminateGrace = 1500 * time.Millisecond

// lockKeys returns the keys that lock and route have in common.
func lockKeys(l *Lock) []key {
	return []key{
		{"max_wait", one(&l.MaxWait, atLeast(0))},
		{"expiry", one(&l.Expiry, atLeast(time.Millisecond))},
		{"max_waiters", count(&l.MaxWaiters, 1, unbounded)},
		{"on_max_wait", one(&l.OnMaxWait, choice(OnMaxWaitReject, OnMaxWaitPass))},
		{"on_rotation", one(&l.OnRotation, choice(OnRotationRedirect, OnRotationPass))},
		{"on_expiry", one(&l.OnExpiry, choice(OverdueRelease, OverdueAbort, OverdueTerminate))},
		{"terminate_grace", one(&l.TerminateGrace, between(0, maxTerminateGrace))},
		{"on_store_failure", one(&l.OnStoreFailure,
			choice(OnStoreFailureLocal, OnStoreFailureReject, OnStoreFailurePass))},
		{"abandon_after", one(&l.AbandonAfter, atLeast(0))},
		{"on_abandon", one(&l.OnAbandon, choice(OverdueRelease, OverdueTerminate))},
		{"release_on", one(&l.ReleaseOn, choice(ReleaseOnClose, ReleaseOnHeaders, ReleaseOnEnd))},
		{"status", count(&l.Status, 400, 599)},
		{"retry_after", one(&l.RetryAfter, wholeSeconds)},
		{"server_timing", yes(&l.ServerTiming)},
		{"observe", yes(&l.Observe)},
	}
}

func routeBlock(r *Route, g *Gate, catchAll **Route) block {
	return block{
		keys: append([]key{
			{"path", many(&r.Path, pathPattern)},
			{"methods", many(&r.Methods, method)},
			{"host", many(&r.Host, hostName)},
			{"mode", one(&r.Mode, choice(ModeExclusive, ModeRead, ModeOff))},
		}, lockKeys(&r.Lock)...),
		check: func(b *found) {
			checkRoute(b, r, catchAll)
			checkWait(b, b, r.Lock, g.Upstream)
		},
	}
}
