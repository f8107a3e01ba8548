package sessionlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

var lenient = sessionlock.Policy{MaxWait: time.Hour, HoldLocally: true}

// wantLocal fails unless a has the lock, and holds it within its manager only, or not, as is wanted.
func (a *attempt) wantLocal(t *testing.T, want bool) {
	t.Helper()
	a.wantHeld(t)
	if got := a.lock().Local(); got != want {
		t.Errorf("held within the manager only: got %v, want %v", got, want)
	}
}

func TestAStoreThatFailsLeavesTheQueueOfTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Fail(errDown)
		first, second, third := begin(t, m, lenient), begin(t, m, lenient), begin(t, m, lenient)
		first.wantLocal(t, true)
		second.wantWaits(t)
		if got := m.Snapshot(); len(got) != 1 || !got[0].Local || len(got[0].Waiters) != 2 {
			t.Errorf("got the snapshot %+v, want one that is held locally, and two waiters", got)
		}
		time.Sleep(3 * ttl) // longer than a lease lives that is not renewed
		synctest.Wait()
		first.release()
		second.wantLocal(t, true)
		third.wantWaits(t)
		gate.Fail(nil)
		second.release()
		third.wantLocal(t, false)
		if got := gate.Counts(); got.Acquire != 3 || got.Adopt != 2 || got.Renew == 0 {
			t.Errorf("got %+v, want each turn to ask the store, and the local holds to go on asking for a lease", got)
		}
		third.release()
		first.wantLocalAfterwards(t)
		wantEmpty(t, m)
	})
}

func (a *attempt) wantLocalAfterwards(t *testing.T) {
	t.Helper()
	if !a.lock().Local() || a.lock().Err() != nil {
		t.Errorf("after its end: got local %v, error %v, want true and none", a.lock().Local(), a.lock().Err())
	}
}

func TestALockHeldLocallyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Fail(errDown)
		loss := make(told, 10)
		p := loss.policy(lenient)
		p.Expiry = time.Minute
		first, second := begin(t, m, p), begin(t, m, lenient)
		time.Sleep(time.Minute)
		synctest.Wait()
		first.wantLost(t, sessionlock.ErrExpired)
		loss.want(t, sessionlock.ErrExpired)
		second.wantLocal(t, true)
		second.release()
		wantEmpty(t, m)
	})
}

// The caller's policy decides: another caller in the same queue may not want a local lock.
func TestEachWaiterSaysWhatAFailingStoreMeans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Fail(errDown)
		first, strict, last := begin(t, m, lenient), begin(t, m, patient), begin(t, m, lenient)
		strict.wantWaits(t)
		first.release()
		strict.wantError(t, sessionlock.ErrStore)
		last.wantLocal(t, true)
		last.release()
		wantEmpty(t, m)
	})
}

func TestALeaseThatCannotBeRenewedBecomesLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		loss, local := make(told, 10), make(chan sessionlock.Description, 10)
		p := loss.policy(lenient)
		p.OnLocal = func(holder sessionlock.Description) { local <- holder }
		holder, next := begin(t, m, p), begin(t, m, lenient)
		gate.Fail(errDown)
		time.Sleep(ttl)
		synctest.Wait()
		holder.wantLocal(t, true)
		next.wantWaits(t)
		if len(local) != 1 || (<-local).Path != "/" {
			t.Error("OnLocal was not told once of the holder")
		}
		loss.want(t, nil)

		// The store is back, and gives the lease to another gate: that is what the policy means. The next here waits.
		gate.Fail(nil)
		other := sessionlock.NewManager(server.Gate())
		elsewhere := begin(t, other, patient)
		elsewhere.wantHeld(t)
		holder.release()
		next.wantWaits(t)
		elsewhere.release()
		time.Sleep(time.Second)
		synctest.Wait()
		next.wantLocal(t, false)
		next.release()
		loss.want(t, nil)
		wantEmpty(t, m)
		wantEmpty(t, other)
	})
}

func TestALeaseThatAnotherHasIsLostUnderEveryPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _, m := remote(ttl)
		loss := make(told, 10)
		p := loss.policy(lenient)
		p.OnLocal = func(sessionlock.Description) { t.Error("told that the lock goes on") }
		holder := begin(t, m, p)
		server.Drop(key)
		time.Sleep(ttl / 2)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		loss.want(t, sessionlock.ErrLost)
		if holder.lock().Local() {
			t.Error("a lock that was lost is said to have been held locally")
		}
		wantEmpty(t, m)
	})
}

// A manager that waited in the store's line, and got the lock without it, no longer waits there.
func TestAHoldThatIsLocalWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		elsewhere := begin(t, sessionlock.NewManager(server.Gate()), patient)
		waiter := begin(t, m, lenient)
		waiter.wantWaits(t)
		gate.Fail(errDown)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		waiter.wantLocal(t, true)
		waiter.release()
		if got := gate.Counts(); got.Adopt != 1 || got.Withdraw != 0 {
			t.Errorf("got %+v, want one lease adopted, which ends the wait", got)
		}
		elsewhere.release()
		wantEmpty(t, m)
	})
}

// The store is back while a lock is held locally: its lease is the manager's then, as any other; or, if another manager
// has it by now, the lock is lost, which is reported.
func TestALocalHoldBecomesALeaseOrIsLost(t *testing.T) {
	for name, began := range map[string]func(*testing.T, *locktest.Gate, *sessionlock.Manager, sessionlock.Policy) *attempt{
		"which began locally": func(t *testing.T, gate *locktest.Gate, m *sessionlock.Manager, p sessionlock.Policy) *attempt {
			gate.Fail(errDown)
			return begin(t, m, p)
		},
		"whose lease could not be renewed": func(t *testing.T, gate *locktest.Gate, m *sessionlock.Manager, p sessionlock.Policy) *attempt {
			a := begin(t, m, p)
			gate.Fail(errDown)
			time.Sleep(ttl)
			synctest.Wait()
			return a
		},
	} {
		for _, taken := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, taken by another: %v", name, taken), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server, gate, m := remote(ttl)
					loss := make(told, 10)
					holder := began(t, gate, m, loss.policy(lenient))
					holder.wantLocal(t, true)
					other := sessionlock.NewManager(server.Gate())
					var elsewhere *attempt
					if taken {
						elsewhere = begin(t, other, patient)
						elsewhere.wantHeld(t)
					}
					gate.Fail(nil)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if taken {
						holder.wantLost(t, sessionlock.ErrLost)
						loss.want(t, sessionlock.ErrLost)
						elsewhere.release()
						return
					}
					holder.wantLocal(t, false)
					if got, held := server.Holder(key); !held || got != holder.lock().LeaseToken() {
						t.Errorf("the store has %v, %v, want the holder's lease %v", got, held, holder.lock().LeaseToken())
					}
					elsewhere = begin(t, other, patient)
					time.Sleep(3 * ttl) // it is renewed
					synctest.Wait()
					elsewhere.wantWaits(t)
					next := begin(t, m, lenient)
					holder.release()
					time.Sleep(time.Second)
					synctest.Wait()
					elsewhere.wantHeld(t)
					elsewhere.release()
					time.Sleep(time.Second)
					synctest.Wait()
					next.wantLocal(t, false)
					next.release()
					loss.want(t, nil)
					wantEmpty(t, m)
					wantEmpty(t, other)
				})
			})
		}
	}
}

// silent is a store that cannot say, and does not know yet whether it is away.
type silent struct {
	sessionlock.Store
	err   atomic.Pointer[sessionlock.RetryError] // nil: it is well
	ready chan struct{}
	asked atomic.Int64
}

func (s *silent) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	s.asked.Add(1)
	if err := s.err.Load(); err != nil {
		return nil, err
	}
	return s.Store.Acquire(ctx, key, token)
}

// A failure that is not final is a reason to ask again and nothing else, as long as max wait lasts; what its end means
// is for the policy, unless the store knows of a holder.
func TestAFailureThatIsNotFinalIsWaitedFor(t *testing.T) {
	const wait = time.Second
	for name, c := range map[string]struct {
		local  bool
		known  error // what the store knows
		end    error // of a wait that is over; nil: the lock, held locally
		noWait error // with a max wait of zero
	}{
		"reject":                   {false, sessionlock.ErrStore, sessionlock.ErrStore, sessionlock.ErrStore},
		"local":                    {true, sessionlock.ErrStore, nil, nil},
		"reject, a known holder":   {false, sessionlock.ErrHeld, sessionlock.ErrMaxWait, sessionlock.ErrMaxWait},
		"local, a holder is known": {true, sessionlock.ErrHeld, sessionlock.ErrMaxWait, sessionlock.ErrMaxWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, gate, _ := remote(ttl)
				store := &silent{Store: gate, ready: make(chan struct{}, 1)}
				m := sessionlock.NewManager(store)
				check := func(a *attempt, want error) {
					t.Helper()
					if want != nil {
						a.wantError(t, want)
						return
					}
					a.wantLocal(t, true)
					a.release()
				}
				store.err.Store(&sessionlock.RetryError{Err: c.known, Ready: store.ready})
				a := begin(t, m, sessionlock.Policy{MaxWait: wait, HoldLocally: c.local})
				time.Sleep(wait - 1)
				synctest.Wait()
				a.wantWaits(t)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				check(a, c.end)
				check(begin(t, m, sessionlock.Policy{HoldLocally: c.local}), c.noWait)

				a = begin(t, m, sessionlock.Policy{MaxWait: wait, HoldLocally: c.local})
				asked := store.asked.Load()
				store.err.Store(nil)
				time.Sleep(wait / 2)
				synctest.Wait()
				a.wantWaits(t)
				if got := store.asked.Load(); got != asked {
					t.Errorf("asked %d times more before the store was ready", got-asked)
				}
				store.ready <- struct{}{}
				synctest.Wait()
				a.wantLocal(t, false)
				a.release()
				if _, held := server.Holder(key); held {
					t.Error("the lease is still there")
				}
				wantEmpty(t, m)
			})
		})
	}
}

func TestAReaderGoesOnWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Fail(errors.New("something that is no ErrStore"))
		holder := begin(t, m, lenient)
		read := lenient
		read.Mode = sessionlock.Read
		waiting, last := begin(t, m, read), begin(t, m, lenient)
		waiting.wantWaits(t)
		holder.release()
		waiting.wantHeld(t)
		last.wantLocal(t, true)
		last.release()
		wantEmpty(t, m)
	})
}
