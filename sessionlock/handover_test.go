package sessionlock_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// successor is the process that has taken over, with the leases that this one has there.
type successor struct {
	asked    int // for a lease
	released int
}

func (s *successor) Ask(sessionlock.Key) <-chan struct{} {
	s.asked++
	return make(chan struct{}) // never granted: the successor's own request has it
}

func (s *successor) Release(sessionlock.Key) { s.released++ }

// The successor has given a lock to a request of its own when it says that it is broken. Wherever the lease is then,
// no request of this process may get it without asking.
func TestALeaseThatTheSuccessorHasEndedGoesToNoWaiter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(holder *attempt)
		waiter int // of the managers
	}{
		"the lock is held":                        {func(*attempt) {}, 0},
		"it is being handed on to a waiter":       {func(holder *attempt) { holder.lock().Release() }, 0},
		"it is held, and another manager waits":   {func(*attempt) {}, 1},
		"it is kept for another manager's waiter": {func(holder *attempt) { holder.lock().Release() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // the waiter may be too quick for the case to be what it says
				synctest.Test(t, func(t *testing.T) {
					store, to := sessionlock.NewLocal(), new(successor)
					managers := []*sessionlock.Manager{sessionlock.NewManager(store), sessionlock.NewManager(store)}
					holder := begin(t, managers[0], patient)
					waiter := begin(t, managers[c.waiter], patient)
					if got := store.HandOver(to); len(got) != 1 {
						t.Fatalf("%d leases were handed over, want one", len(got))
					}
					c.before(holder)
					store.Break(key)
					for _, m := range managers {
						m.Break(key)
					}
					time.Sleep(time.Second) // until a waiter has tried again
					synctest.Wait()
					if l := waiter.lock(); l != nil && l.Err() == nil {
						t.Error("the waiter holds a lock that the successor has given to another request")
					}
					waiter.cancel(nil)
					synctest.Wait()
					if to.released != 1+to.asked {
						t.Errorf("%d leases were released, want one and %d that were asked for", to.released, to.asked)
					}
					for _, m := range managers {
						wantEmpty(t, m)
					}
				})
			}
		})
	}
}

// slow is a successor that grants a free lease after a while, and never answers for one that is held.
type slow struct {
	successor
	after time.Duration
	free  bool
}

func (s *slow) Ask(sessionlock.Key) <-chan struct{} {
	s.asked++
	granted := make(chan struct{})
	if s.free {
		time.AfterFunc(s.after, func() { close(granted) })
	}
	return granted
}

// A request with a max_wait of zero gets a free lock, whichever process decides about it: the store waits for the
// successor's answer, but not for long.
func TestARequestThatDoesNotWaitGetsALockThatTheSuccessorGrants(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		free   bool
		after  time.Duration
		gets   bool
		within time.Duration
	}{
		"free, and the answer comes at once":         {free: true, gets: true},
		"free, and the answer takes a while":         {free: true, after: 20 * time.Millisecond, gets: true, within: 20 * time.Millisecond},
		"free, and the successor does not answer":    {free: true, after: time.Hour, within: 100 * time.Millisecond},
		"the lock is held by one of the successor's": {within: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, to := sessionlock.NewLocal(), &slow{after: c.after, free: c.free}
				m := sessionlock.NewManager(store)
				store.HandOver(to)
				asked := time.Now()
				l, err := m.Acquire(t.Context(), key, nil, sessionlock.Policy{})
				if took := time.Since(asked); took > c.within {
					t.Errorf("it took %v, want at most %v", took, c.within)
				}
				switch {
				case c.gets && err != nil:
					t.Fatalf("got error %v, want the lock", err)
				case !c.gets && !errors.Is(err, sessionlock.ErrMaxWait):
					t.Errorf("got error %v, want ErrMaxWait", err)
				}
				if err == nil {
					l.Release()
				}
				if to.released != to.asked {
					t.Errorf("%d leases were released, want %d that were asked for", to.released, to.asked)
				}
				wantEmpty(t, m)
				time.Sleep(2 * c.after)
			})
		})
	}
}

// A request that is canceled before the successor has answered ends at once.
func TestARequestThatIsCanceledBeforeTheSuccessorAnswersLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, to := sessionlock.NewLocal(), new(successor)
		m := sessionlock.NewManager(store)
		store.HandOver(to)
		waiter := begin(t, m, patient)
		gone := errors.New("gone")
		waiter.cancel(gone)
		synctest.Wait()
		waiter.wantError(t, gone)
		if to.asked != 1 || to.released != 1 {
			t.Errorf("asked %d times and released %d, want once each", to.asked, to.released)
		}
		wantEmpty(t, m)
	})
}
