package gate

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// setup is a gate's options with what is made from them. A request keeps the one it began with.
type setup struct {
	Options
	tallies []tally // of the requests that match no route, and of each route
	pool    *fcgi.Pool
	probe   *fcgi.Prober
	misfits *misfits

	users   atomic.Int64 // requests that have not ended
	retired atomic.Bool  // there will be no more of them
	idle    chan struct{}
	closed  sync.Once // of idle
}

func newSetup(o Options, c *counters, log hclog.Logger) *setup {
	s := &setup{Options: o, pool: fcgi.NewPool(o.Upstream), idle: make(chan struct{}), misfits: newMisfits(&o, log)}
	s.Session.Unread = func() {
		c.unread.Add(1)
		s.misfits.sawUnread()
	}
	s.tallies = append(s.tallies, newTally(c, "", o.Meter))
	for _, route := range o.Routes {
		s.tallies = append(s.tallies, newTally(c, route.Name, o.Meter))
	}
	probes := o.Probes
	probes.Changed = func(a fcgi.Addr, health fcgi.Health, err error) {
		switch health {
		case fcgi.Failing:
			log.Error("upstream fails its ping", "upstream", a, "error", err)
		case fcgi.Busy:
			log.Info("upstream is busy, its ping waits for a worker", "upstream", a)
		default:
			log.Info("upstream answers its ping again", "upstream", a)
		}
	}
	s.probe = fcgi.StartProber(s.pool, probes)
	return s
}

func (s *setup) leave() {
	if s.users.Add(-1) == 0 && s.retired.Load() {
		s.closed.Do(func() { close(s.idle) })
	}
}

// retire says that another setup is in force. The channel is closed when the last request has left this one.
func (s *setup) retire() <-chan struct{} {
	s.retired.Store(true)
	if s.users.Load() == 0 {
		s.closed.Do(func() { close(s.idle) })
	}
	return s.idle
}

func (s *setup) close() {
	s.probe.Stop()
	s.pool.Close()
}

func (s *setup) keyFor(id []byte) sessionlock.Key {
	return sessionlock.KeyFor(s.Secret, s.Realm, phpsession.LockName(id))
}
