package sessionlock_test

import (
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
