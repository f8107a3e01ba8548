package sessionlock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// TestManyRequestsAtOnce is for the race detector: real goroutines do all that can be done with a lock, in real time.
func TestManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	local, server := sessionlock.NewLocal(), locktest.NewFake(ttl)
	for name, store := range map[string]func() sessionlock.Store{
		"local":  func() sessionlock.Store { return local },
		"remote": func() sessionlock.Store { return server.Gate() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stress{T: t, end: time.Now().Add(time.Second)}
			for range 2 {
				s.managers = append(s.managers, sessionlock.NewManager(store()))
			}
			var all sync.WaitGroup
			for range 32 {
				all.Go(s.client)
			}
			all.Go(s.operator)
			all.Wait()
			for _, m := range s.managers {
				if n := m.Sessions() + m.Renewals(); n != 0 {
					t.Errorf("%d sessions and leases are left in memory, want none", n)
				}
			}
			if s.held.Load() == 0 {
				t.Error("got no hold at all")
			}
		})
	}
}

// stress is two sessions whose locks end in all ways there are, and behind them two whose locks are released only.
type stress struct {
	*testing.T
	managers []*sessionlock.Manager
	end      time.Time
	inside   [4]atomic.Int64 // holders of each session
	held     atomic.Int64
}

func ends(session int) bool { return session < 2 }

// keyOf is in the same shard for all.
func keyOf(session int) sessionlock.Key { return sessionlock.Key{byte(session * 64)} }

// client acquires locks with short limits, and gives them back in time, too late or twice.
func (s *stress) client() {
	for time.Now().Before(s.end) {
		session := rand.IntN(len(s.inside))
		p := sessionlock.Policy{MaxWait: rand.N(20 * time.Millisecond), MaxWaiters: rand.IntN(20)}
		if rand.IntN(4) == 0 {
			p.Mode = sessionlock.Read
		}
		if ends(session) {
			p.Expiry = 1 + rand.N(2*time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 1+rand.N(20*time.Millisecond))
		l, err := s.managers[rand.IntN(len(s.managers))].Acquire(ctx, keyOf(session), path("/"), p)
		switch {
		case err == nil:
			s.hold(l, session)
		case errors.Is(err, sessionlock.ErrMaxWait), errors.Is(err, sessionlock.ErrTooManyWaiters),
			errors.Is(err, context.DeadlineExceeded):
		default:
			s.Errorf("acquire: %v", err)
		}
		cancel()
	}
}

func (s *stress) hold(l *sessionlock.Lock, session int) {
	s.held.Add(1)
	if !ends(session) && !l.Since().IsZero() {
		if n := s.inside[session].Add(1); n != 1 {
			s.Errorf("%d hold the lock, want 1", n)
		}
		time.Sleep(rand.N(time.Millisecond))
		s.inside[session].Add(-1)
	}
	l.Release()
	if rand.IntN(2) == 0 {
		l.Release()
	}
}

// operator looks at everything, and breaks what it sees.
func (s *stress) operator() {
	for time.Now().Before(s.end) {
		for _, m := range s.managers {
			for _, state := range m.Snapshot() {
				if session := int(state.Key[0]) / 64; ends(session) {
					m.Break(state.Key)
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
}
