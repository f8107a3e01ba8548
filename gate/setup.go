package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpfpm"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// setup is a gate's options and what is made from them. A request keeps the setup with which it started.
type setup struct {
	Options
	tallies []routeTally // of the requests that match no route, and of each route
	pool    *fcgi.Pool
	probe   *phpfpm.Prober
	misfits *misfits
	power   *power

	users   atomic.Int64 // requests and outliving holds that have not ended
	retired atomic.Bool  // no more users will come
	bodies  atomic.Int32 // requests whose first bytes of the body are in memory
	late    atomic.Int32 // requests that get their lock once their body is there
	early   atomic.Int64 // length of the shortest body before whose end PHP has responded; 0: none
	idle    chan struct{}
	closed  sync.Once // closes idle
}

func newSetup(o Options, c *counters, log hclog.Logger) *setup {
	o.Upstream.Away, o.Upstream.Back = logAway(log), logBack(log)
	s := &setup{Options: o, pool: fcgi.NewPool(o.Upstream), idle: make(chan struct{}), misfits: newMisfits(&o, log)}
	s.power = newPower(&o, log)
	_ = s.power.check() // it logs what is missing
	s.Session.Unread = func() {
		c.unread.Add(1)
		s.misfits.sawUnread()
	}
	s.tallies = append(s.tallies, newTally(c, "", o.Meter))
	for _, route := range o.Routes {
		s.tallies = append(s.tallies, newTally(c, route.Name, o.Meter))
	}
	probes := o.Probes
	probes.Changed = func(a netaddr.Addr, health fcgi.Health, err error) {
		switch health {
		case fcgi.Failing:
			log.Error("upstream ping failed", "upstream", a, "error", err)
		case fcgi.Busy:
			log.Info("upstream busy; its ping waits for a worker", "upstream", a)
		default:
			log.Info("upstream answers its ping again", "upstream", a)
		}
	}
	s.probe = phpfpm.StartProber(s.pool, o.Upstream.Addrs, probes)
	return s
}

// logAway returns what logs that requests begin to wait for PHP-FPM's return.
func logAway(log hclog.Logger) func(error) {
	return func(err error) { log.Warn("PHP-FPM is away; requests wait for it", "error", err) }
}

// logBack returns what logs that PHP-FPM is back.
func logBack(log hclog.Logger) func(time.Duration, int) {
	return func(away time.Duration, waited int) {
		log.Info("PHP-FPM is back", "away_ms", away.Milliseconds(), "requests", waited)
	}
}

func (s *setup) leave() {
	if s.users.Add(-1) == 0 && s.retired.Load() {
		s.closed.Do(func() { close(s.idle) })
	}
}

// retire marks the setup as replaced. The channel is closed when its last user has left.
func (s *setup) retire() <-chan struct{} {
	s.retired.Store(true)
	if s.users.Load() == 0 {
		s.closed.Do(func() { close(s.idle) })
	}
	return s.idle
}

// watches reports whether it is seen when PHP closes its sessions, as far as it can be.
func (s *setup) watches() bool { return s.Watcher != nil || s.Workers != nil }

// locks reports whether a session handler of PHP's locks the session itself: as the config says, or else as it does by
// default.
func (s *setup) locks(handler string) bool {
	if s.LocksGiven {
		return s.PHPLocks
	}
	return handler == "files" || handler == "memcached"
}

func (s *setup) close() {
	s.probe.Stop()
	s.pool.Close()
}

func (s *setup) keyFor(id []byte) sessionlock.Key {
	return sessionlock.KeyFor(s.Secret, s.Realm, phpsession.LockName(id))
}
