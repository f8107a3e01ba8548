package main

import (
	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/laravel"
	"github.com/fpm-gate/fpm-gate/phpfpm"
	"github.com/fpm-gate/fpm-gate/phpsession"
)

// gateOptions are a gate's, from its block of the config. Values pass as they are: config has checked them and has
// filled in the defaults. Watchers, stores and meters are added by environment.GateOptions.
func gateOptions(c *config.Config, g *config.Gate) gate.Options {
	o := gate.Options{
		Name:     g.Name,
		Realm:    g.Realm,
		MaxConns: g.MaxConns,
		Limits:   fcgi.Limits{MaxParams: g.MaxParams, HeadTimeout: g.HeadTimeout, IdleTimeout: g.IdleTimeout},
		Upstream: fcgi.PoolOptions{
			Addrs:          g.Upstream.Addresses,
			ConnectTimeout: g.Upstream.ConnectTimeout,
			MaxConnections: g.Upstream.MaxConnections,
			QueueTimeout:   g.Upstream.QueueTimeout,
			Reuse:          g.Upstream.Reuse,
			Idle:           g.Upstream.Idle,

			UnreachableWait: g.Upstream.UnreachableWait,
		},
		Probes: phpfpm.ProbeOptions{
			PingPath:   g.Upstream.PingPath,
			StatusPath: g.Upstream.StatusPath,
			Interval:   g.Upstream.ProbeInterval,
		},
		Session: phpsession.Rules{
			Cookies: g.Session.Cookies,
			Query:   g.Session.Query,
			Files:   g.Session.Handler == config.HandlerFiles,
			Depth:   g.Session.Depth,

			IDPattern:    g.Session.IDPattern,
			Format:       cookieFormat(&g.Session),
			MaxInputVars: g.Session.MaxInputVars,
		},
		Suggest:  config.Suggest,
		Param:    g.Session.Param,
		Policy:   lockPolicy(g.Lock),
		SlowWait: c.Log.SlowWait,

		SlowRequest: c.Log.SlowRequest,

		OpenWithin: g.Session.OpenWithin,
		LocksGiven: g.Session.LocksGiven,
		PHPLocks:   phpLocks(&g.Session),
		Reopens:    g.Session.Reopens,
	}
	if g.Lock.Store == config.StoreMemcached { // no one else reads the names of local locks, and a new secret moves none
		o.Secret = []byte(c.Memcached.Secret)
	}
	for _, r := range g.Routes {
		route := gate.Route{Name: r.Name, Paths: r.Path, Methods: r.Methods, Hosts: r.Host, Policy: lockPolicy(r.Lock)}
		switch r.Mode { // any other is the zero of gate.Mode, which has requests wait
		case config.ModeRead:
			route.Policy.Mode = gate.Read
		case config.ModeOff:
			route.Policy.Mode = gate.Off
		}
		o.Routes = append(o.Routes, route)
	}
	return o
}

// cookieFormat opens the session cookies of a gate; nil: they are plain. An encrypted cookie is another one in each
// response, so what two requests have in common shows only when it is opened.
func cookieFormat(s *config.Session) phpsession.Format {
	if s.Format != config.FormatLaravel {
		return nil
	}
	cookies, err := laravel.New(s.Keys)
	if err != nil {
		panic(err) // config has checked the keys
	}
	return cookies
}

// phpLocks reports whether PHP locks its sessions itself, as far as the config says. All handlers that it knows by name
// lock; of any other one only the operator can know.
func phpLocks(s *config.Session) bool {
	if s.LocksGiven {
		return s.Locks
	}
	return s.Handler != config.HandlerAny
}

// lockPolicy is the policy of a lock block. That of a route has all keys: config has filled in those of the gate.
func lockPolicy(l config.Lock) gate.Policy {
	return gate.Policy{
		MaxWait:        l.MaxWait,
		Expiry:         l.Expiry,
		MaxWaiters:     l.MaxWaiters,
		OnMaxWait:      maxWaits[l.OnMaxWait],
		OnRotation:     rotations[l.OnRotation],
		OnExpiry:       overdues[l.OnExpiry],
		OnAbandon:      overdues[l.OnAbandon],
		AbandonAfter:   l.AbandonAfter,
		ReleaseOn:      releases[l.ReleaseOn],
		Status:         l.Status,
		RetryAfter:     l.RetryAfter,
		ServerTiming:   l.ServerTiming,
		Observe:        l.Observe,
		OnStoreFailure: storeFailures[l.OnStoreFailure],

		TerminateGrace: l.TerminateGrace,
	}
}

// The words of the config and what they are to the gate. config accepts no others, so each is found.
var maxWaits = map[string]gate.OnMaxWait{
	config.OnMaxWaitReject: gate.OnMaxWaitReject,
	config.OnMaxWaitPass:   gate.OnMaxWaitPass,
}

var rotations = map[string]gate.OnRotation{
	config.OnRotationRedirect: gate.OnRotationRedirect,
	config.OnRotationPass:     gate.OnRotationPass,
}

var overdues = map[string]gate.Overdue{
	config.OverdueRelease:   gate.OverdueRelease,
	config.OverdueAbort:     gate.OverdueAbort,
	config.OverdueTerminate: gate.OverdueTerminate,
}

var releases = map[string]gate.ReleaseOn{
	config.ReleaseOnClose:   gate.ReleaseOnClose,
	config.ReleaseOnHeaders: gate.ReleaseOnHeaders,
	config.ReleaseOnEnd:     gate.ReleaseOnEnd,
}

var storeFailures = map[string]gate.OnStoreFailure{
	config.OnStoreFailureLocal:  gate.OnStoreFailureLocal,
	config.OnStoreFailureReject: gate.OnStoreFailureReject,
	config.OnStoreFailurePass:   gate.OnStoreFailurePass,
}
