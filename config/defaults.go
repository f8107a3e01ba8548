package config

import "time"

// All defaults of the config are in this file. fpm-gate.hcl repeats them for operators; a test compares the two.

func defaultConfig() *Config {
	return &Config{
		Landlock: true,
		Log: Log{
			Level:       "info",
			Format:      FormatText,
			SlowWait:    time.Second,
			SlowRequest: 5 * time.Second,
		},
	}
}

func defaultAdmin() *Admin {
	return &Admin{ListenMode: 0o660, Pprof: true}
}

func defaultMemcached() *Memcached {
	return &Memcached{
		Timeout:   250 * time.Millisecond,
		Lease:     10 * time.Second,
		KeyPrefix: "fpm-gate:",

		MaxPollRate: 10_000,
	}
}

func defaultGate(name string) *Gate {
	return &Gate{
		Name:        name,
		ListenMode:  0o660,
		Realm:       name,
		MaxParams:   256 << 10, // far above what web servers accept as headers
		HeadTimeout: 10 * time.Second,
		IdleTimeout: 75 * time.Second,
		Upstream: Upstream{
			ConnectTimeout: 10 * time.Second,
			QueueTimeout:   30 * time.Second, // with MaxWait, below nginx's 60 s
			Reuse:          time.Second,      // short, as Idle is: each connection occupies a worker
			Idle:           50 * time.Millisecond,
			ProbeInterval:  5 * time.Second,
		},
		Session: Session{
			Cookies:      []string{"PHPSESSID"}, // PHP's own default, as are KeyPrefix and MaxInputVars
			Format:       FormatPlain,
			Handler:      HandlerAny,
			Watch:        WatchAuto,
			KeyPrefix:    "memc.sess.key.",
			MaxInputVars: 1000,
			OpenWithin:   300 * time.Millisecond,
		},
		Lock: Lock{
			Store:          StoreLocal,
			MaxWait:        10 * time.Second,
			Expiry:         60 * time.Second,
			MaxWaiters:     256, // above the 128 streams of an HTTP/2 connection to nginx
			OnMaxWait:      OnMaxWaitReject,
			OnRotation:     OnRotationRedirect,
			OnExpiry:       OverdueRelease,
			TerminateGrace: time.Second, // at most maxTerminateGrace
			OnAbandon:      OverdueRelease,
			OnStoreFailure: OnStoreFailureLocal,
			AbandonAfter:   5 * time.Second,
			ReleaseOn:      ReleaseOnClose,
			Status:         503,
			RetryAfter:     time.Second,
		},
	}
}

// defaultRoute starts with the lock of its gate, which must be decoded before.
func defaultRoute(name string, g *Gate) *Route {
	return &Route{Name: name, Mode: ModeExclusive, Lock: g.Lock}
}
