package config

import "time"

// block returns the whole file, the outermost block. The tables from here on define the format: each key, where its
// value is stored and what it must be. Keys and blocks are decoded in the order of the tables, not of the file.
func (f *file) block() block {
	return block{
		keys: []key{{"landlock", setBool(&f.Landlock)}},
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
	// The words are hclog's; a request is logged at debug.
	return block{keys: []key{
		{"level", setOne(&l.Level, choice("trace", "debug", "info", "warn", "error"))},
		{"format", setOne(&l.Format, choice(FormatText, FormatJSON))},
		{"slow_wait", setOne(&l.SlowWait, atLeast(0))},
		{"slow_request", setOne(&l.SlowRequest, atLeast(0))},
	}}
}

func (f *file) adminBlock(a *Admin) block {
	return block{
		keys: []key{
			{"listen", setOne(&a.Listen, dialAddress)},
			{"listen_mode", setOne(&a.ListenMode, fileMode)},
			{"pprof", setBool(&a.Pprof)},
		},
		check: func(b *found) { f.checkAdmin(b, a) },
	}
}

func memcachedBlock(m *Memcached) block {
	return block{
		keys: []key{
			{"servers", setList(&m.Servers, dialAddress)},
			{"timeout", setOne(&m.Timeout, atLeast(time.Millisecond))},
			// memcached counts TTLs in seconds, so a shorter lease could end between two renewals.
			{"lease", setOne(&m.Lease, between(3*time.Second, time.Hour))},
			{"key_prefix", setOne(&m.KeyPrefix, keyPrefix)},
			{"secret", setOne(&m.Secret, text)},
			{"quorum", setBool(&m.Quorum)},
			{"max_poll_rate", setInt(&m.MaxPollRate, 1, unbounded)},
			{"username", setOne(&m.Username, credential)},
			{"password", setOne(&m.Password, credential)},
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
			{"ca", setOne(&t.CA, fileName)},
			{"cert", setOne(&t.Cert, fileName)},
			{"key", setOne(&t.Key, fileName)},
		},
		check: func(b *found) { needBoth(b, "cert", t.Cert, "key", t.Key) },
	}
}

func (f *file) gateBlock(g *Gate) block {
	var catchAll *Route
	return block{
		keys: []key{
			{"listen", setOne(&g.Listen, listenAddress)},
			{"listen_mode", setOne(&g.ListenMode, fileMode)},
			// Owner and group are looked up when the socket is made: a config can be checked on another machine.
			{"listen_owner", setOne(&g.ListenOwner, account)},
			{"listen_group", setOne(&g.ListenGroup, account)},
			{"realm", setOne(&g.Realm, realm)},
			{"max_conns", setInt(&g.MaxConns, 0, unbounded)},
			{"max_params", setSize(&g.MaxParams, 4<<10, 64<<20)},
			{"head_timeout", setOne(&g.HeadTimeout, atLeast(time.Millisecond))},
			{"idle_timeout", setOne(&g.IdleTimeout, atLeast(time.Millisecond))},
		},
		blocks: []child{
			{"upstream", unnamed, func(string) block { return f.upstreamBlock(&g.Upstream) }},
			// In this order: application, in session, sets defaults of lock, and a route starts with the values of lock.
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
			{"address", setFirst(&u.Addresses, dialAddress)}, // checkUpstream refuses both
			{"addresses", setList(&u.Addresses, dialAddress)},
			{"connect_timeout", setOne(&u.ConnectTimeout, atLeast(time.Millisecond))},
			{"max_connections", setInt(&u.MaxConnections, 0, unbounded)},
			{"queue_timeout", setOne(&u.QueueTimeout, atLeast(time.Millisecond))},
			{"unreachable_wait", setOne(&u.UnreachableWait, atLeast(0))},
			{"reuse", setOne(&u.Reuse, atLeast(0))}, // 0: no connection is used twice
			{"idle", setOne(&u.Idle, atLeast(0))},
			{"ping_path", setOne(&u.PingPath, pagePath)},
			{"status_path", setOne(&u.StatusPath, pagePath)},
			{"probe_interval", setOne(&u.ProbeInterval, atLeast(100*time.Millisecond))},
		},
		check: func(b *found) { f.checkUpstream(b, u) },
	}
}

func sessionBlock(g *Gate) block {
	s := &g.Session
	return block{
		keys: []key{
			{"application", application(g)}, // first: the other keys, and the block lock, win
			{"cookies", setList(&s.Cookies, cookieName)},
			{"id_pattern", setOne(&s.IDPattern, idPattern)},
			{"format", setOne(&s.Format, choice(FormatPlain, FormatLaravel))},
			{"keys", appKeys(&s.Keys)},
			{"query", setList(&s.Query, sessionName)},
			{"param", setOne(&s.Param, paramName)},
			{"handler", setOne(&s.Handler, handlerName)},
			{"save_path", setOne(&s.SavePath, text)}, // read by checkSession, once the handler is known
			{"key_prefix", setOne(&s.KeyPrefix, sessionKeyPrefix)},
			{"watch", setOne(&s.Watch, choice(WatchAuto, WatchWorkers, WatchFiles, WatchMemcached, WatchNone))},
			{"locks", setBool(&s.Locks)},
			{"max_input_vars", setInt(&s.MaxInputVars, 1, 1_000_000)},
			{"open_within", setOne(&s.OpenWithin, atLeast(0))},
		},
		check: func(b *found) { checkSession(b, s) },
	}
}

func (f *file) lockBlock(l *Lock) block {
	store := key{"store", setOne(&l.Store, choice(StoreLocal, StoreMemcached))}
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
		// Zero is allowed where it means "not at all", and refused where it would mean that nothing works.
		{"max_wait", setOne(&l.MaxWait, atLeast(0))},
		{"expiry", setOne(&l.Expiry, atLeast(time.Millisecond))},
		{"max_waiters", setInt(&l.MaxWaiters, 1, unbounded)},
		{"on_max_wait", setOne(&l.OnMaxWait, choice(OnMaxWaitReject, OnMaxWaitPass))},
		{"on_rotation", setOne(&l.OnRotation, choice(OnRotationRedirect, OnRotationPass))},
		{"on_expiry", setOne(&l.OnExpiry, choice(OverdueRelease, OverdueAbort, OverdueTerminate))},
		{"terminate_grace", setOne(&l.TerminateGrace, between(0, maxTerminateGrace))},
		{"on_store_failure", setOne(&l.OnStoreFailure,
			choice(OnStoreFailureLocal, OnStoreFailureReject, OnStoreFailurePass))},
		{"abandon_after", setOne(&l.AbandonAfter, atLeast(0))},
		{"on_abandon", setOne(&l.OnAbandon, choice(OverdueRelease, OverdueTerminate))},
		{"release_on", setOne(&l.ReleaseOn, choice(ReleaseOnClose, ReleaseOnHeaders, ReleaseOnEnd))},
		{"status", setInt(&l.Status, 400, 599)},
		{"retry_after", setOne(&l.RetryAfter, wholeSeconds)},
		{"server_timing", setBool(&l.ServerTiming)},
		{"observe", setBool(&l.Observe)},
	}
}

func routeBlock(r *Route, g *Gate, catchAll **Route) block {
	return block{
		keys: append([]key{
			{"path", setList(&r.Path, pathPattern)},
			{"methods", setList(&r.Methods, method)},
			{"host", setList(&r.Host, hostName)},
			{"mode", setOne(&r.Mode, choice(ModeExclusive, ModeRead, ModeOff))},
		}, lockKeys(&r.Lock)...),
		check: func(b *found) {
			checkRoute(b, r, catchAll)
			checkWait(b, b, r.Lock, g.Upstream)
		},
	}
}
