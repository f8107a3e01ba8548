package sessionlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// many acquires the locks of n other sessions.
func many(t *testing.T, m *sessionlock.Manager, n int) (all []*sessionlock.Lock) {
	t.Helper()
	for i := range n {
		l, err := m.Acquire(t.Context(), sessionlock.KeyFor(nil, "many", fmt.Append(nil, i)), nil, patient)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

func release(all []*sessionlock.Lock) {
	for _, l := range all {
		l.Release()
	}
}

func TestLeasesAreRenewedAtAThirdOfTheirTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		before := runtime.NumGoroutine()
		all := many(t, m, 100)
		for i := range 30 {
			synctest.Wait()
			if got := runtime.NumGoroutine(); got > before+50 {
				t.Errorf("%d goroutines are left between renewals, want none for a lease", got-before)
			}
			if got, want := gate.Counts().Renew, 100*i; got != want {
				t.Errorf("at %v: got %d renewals, want %d", time.Duration(i)*ttl/3, got, want)
			}
			time.Sleep(ttl/3 + 1)
		}
		synctest.Wait()
		for _, l := range all {
			if l.Err() != nil {
				t.Errorf("lock lost: %v", l.Err())
			}
		}
		release(all)
		renewed := gate.Counts().Renew
		time.Sleep(time.Hour)
		if got := gate.Counts().Renew; got != renewed {
			t.Errorf("%d leases were renewed after their release", got-renewed)
		}
		wantEmpty(t, m)
	})
}

func TestALostLeaseIsSaidAtTheNextRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		loss := make(told, 10)
		holder, next := begin(t, m, loss.policy(patient)), begin(t, m, patient)
		server.Drop(key)
		time.Sleep(ttl / 3)
		synctest.Wait()
		holder.wantHeld(t) // the loss cannot be known yet
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		loss.want(t, sessionlock.ErrLost)
		next.wantHeld(t)
		if got := gate.Counts().Acquire; got != 2 {
			t.Errorf("the store was asked %d times, want the next one to ask itself", got)
		}
		holder.release()
		next.wantHeld(t)
		next.release()
		wantEmpty(t, m)
	})
}

func TestALeaseThatAnotherGateTookIsNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _, m := remote(ttl)
		holder := begin(t, m, patient)
		server.Drop(key)
		thief := begin(t, sessionlock.NewManager(server.Gate()), patient)
		thief.wantHeld(t)
		time.Sleep(ttl)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		holder.release()
		if got, ok := server.Holder(key); !ok || got != thief.lock().Token() {
			t.Errorf("the store has holder %v, %v, want %v", got, ok, thief.lock().Token())
		}
		thief.wantHeld(t)
		thief.release()
	})
}

// A gate that is cut off cannot know what became of its lease: when a TTL has passed it must not trust it.
func TestALeaseThatCannotBeRenewedIsLostAfterItsTTL(t *testing.T) {
	for _, lastRenewal := range []int{0, 1, 5} {
		t.Run(fmt.Sprintf("after %d renewals", lastRenewal), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, gate, m := remote(ttl)
				holder, next := begin(t, m, patient), begin(t, m, patient)
				time.Sleep(time.Duration(lastRenewal) * (ttl/3 + 1))
				synctest.Wait()
				gate.Fail(errDown)
				time.Sleep(ttl - 1)
				synctest.Wait()
				holder.wantHeld(t)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				holder.wantLost(t, sessionlock.ErrLost)
				next.wantError(t, sessionlock.ErrStore)
				if _, ok := server.Holder(key); ok {
					t.Error("the lease still lives")
				}
				wantEmpty(t, m)
			})
		})
	}
}

func TestOneFailedRenewalIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		holder := begin(t, m, patient)
		for range 10 {
			time.Sleep(ttl / 6)
			gate.Fail(errDown)
			time.Sleep(ttl / 3)
			gate.Fail(nil)
			time.Sleep(ttl / 2)
			synctest.Wait()
			holder.wantHeld(t)
		}
		holder.release()
		wantEmpty(t, m)
	})
}

// A lease counts from the question: its answer may have taken long.
func TestASlowAnswerDoesNotLengthenTheLease(t *testing.T) {
	for name, renewals := range map[string]int{"to an acquire": 0, "to a renewal": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const slow = 2 * time.Second
				_, gate, m := remote(ttl)
				if renewals == 0 {
					gate.Slow(slow)
				}
				asked := time.Now()
				holder := begin(t, m, patient)
				if renewals > 0 {
					gate.Slow(slow)
					time.Sleep(ttl/3 + 1)
					asked = time.Now()
				}
				time.Sleep(slow)
				synctest.Wait()
				gate.Fail(errDown)
				<-holder.lock().Lost()
				if got := time.Since(asked); got != ttl {
					t.Errorf("lost %v after the question, want %v", got, ttl)
				}
			})
		})
	}
}

// The process was stopped between a request to the store and its response, for longer than a lease lives: another gate may have the
// lock by then, and the request waits for it like any other.
func TestALeaseThatIsOverWhenItComesIsNoLock(t *testing.T) {
	for name, taken := range map[string]bool{"another gate has the lock": true, "no other gate has it": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, gate, m := remote(ttl)
				gate.Slow(4 * ttl) // half of it to the server, and half to the gate
				late := begin(t, m, patient)
				gate.Slow(0)
				time.Sleep(3*ttl + time.Second)
				other := sessionlock.NewManager(server.Gate())
				if taken {
					holder := begin(t, other, patient)
					time.Sleep(2 * ttl)
					synctest.Wait()
					late.wantWaits(t)
					holder.wantHeld(t)
					holder.release()
				}
				time.Sleep(2 * ttl)
				synctest.Wait()
				late.wantHeld(t)
				late.release()
				wantEmpty(t, m)
			})
		})
	}
}

func TestALeaseThatCameLateIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Slow(3 * time.Second)
		holder := begin(t, m, patient)
		gate.Slow(0)
		time.Sleep(time.Second)
		all := many(t, m, 1) // asked for later, and there before
		time.Sleep(ttl/3 + 1 - time.Second)
		synctest.Wait()
		if got := gate.Counts().Renew; got != 1 {
			t.Errorf("%d leases were renewed at a third of the TTL of the first, want that one", got)
		}
		holder.release()
		release(all)
		wantEmpty(t, m)
	})
}

// mute is a store that does not answer renewals of some keys: until ctx is done, or until the test sends err.
type mute struct {
	sessionlock.Store
	keys  map[sessionlock.Key]bool
	err   chan error // nil: it heeds ctx
	asked atomic.Int64
}

func (s *mute) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	lease, err := s.Store.Acquire(ctx, key, token)
	if err == nil && s.keys[key] {
		lease = &muteLease{lease, s}
	}
	return lease, err
}

type muteLease struct {
	sessionlock.Lease
	store *mute
}

func (l *muteLease) Renew(ctx context.Context) error {
	l.store.asked.Add(1)
	if l.store.err != nil {
		return <-l.store.err
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestARenewalThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, _ := remote(ttl)
		m := sessionlock.NewManager(&mute{Store: gate, keys: map[sessionlock.Key]bool{key: true}})
		holder := begin(t, m, patient)
		all := many(t, m, 100)
		time.Sleep(ttl/3 + 1)
		synctest.Wait()
		if got := gate.Counts().Renew; got != len(all) {
			t.Errorf("%d leases were renewed while one hung, want %d", got, len(all))
		}
		time.Sleep(2 * ttl / 3)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		time.Sleep(time.Minute)
		for _, l := range all {
			if l.Err() != nil {
				t.Errorf("another lock is lost: %v", l.Err())
			}
		}
		release(all)
		wantEmpty(t, m)
	})
}

func TestLeasesAreLostInTimeAlthoughEveryRenewalHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, _ := remote(ttl)
		store := &mute{Store: gate, keys: make(map[sessionlock.Key]bool), err: make(chan error)}
		m := sessionlock.NewManager(store)
		for i := range 100 {
			store.keys[sessionlock.KeyFor(nil, "many", fmt.Append(nil, i))] = true
		}
		all := many(t, m, 100)
		next := start(t, m, all[0].Key(), patient)
		time.Sleep(ttl)
		synctest.Wait()
		for _, l := range all {
			if !errors.Is(l.Err(), sessionlock.ErrLost) {
				t.Fatalf("got error %v of a lock, want ErrLost", l.Err())
			}
		}
		next.wantHeld(t)
		asked := store.asked.Load()
		for range asked {
			store.err <- sessionlock.ErrLost // late, of a lease that is over
		}
		synctest.Wait()
		next.wantHeld(t)
		if got := store.asked.Load(); got != asked {
			t.Errorf("%d leases were renewed that were lost before", got-asked)
		}
		next.release()
		wantEmpty(t, m)
	})
}
