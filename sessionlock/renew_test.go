package sessionlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
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
				t.Errorf("%d goroutines are left between renewals; want none for a lease", got-before)
			}
			if got, want := gate.Counts().Renew, 100*i; got != want {
				t.Errorf("at %v: got %d renewals; want %d", time.Duration(i)*ttl/3, got, want)
			}
			time.Sleep(ttl/3 + 1)
		}
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
		holder, next := begin(m, loss.policy(patient)), begin(m, patient)
		server.Drop(key)
		time.Sleep(ttl / 3)
		synctest.Wait()
		holder.wantHeld(t) // nobody can know yet
		time.Sleep(1)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		loss.want(t, sessionlock.ErrLost)
		next.wantHeld(t)
		if got := gate.Counts().Acquire; got != 2 {
			t.Errorf("the store was asked %d times; want the next one to ask itself", got)
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
		holder := begin(m, patient)
		server.Drop(key)
		thief := begin(sessionlock.NewManager(server.Gate()), patient)
		thief.wantHeld(t)
		time.Sleep(ttl)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		holder.release()
		if got, ok := server.Holder(key); !ok || got != thief.lock().Token() {
			t.Errorf("the store has holder %v, %v; want %v", got, ok, thief.lock().Token())
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
				holder, next := begin(m, patient), begin(m, patient)
				time.Sleep(time.Duration(lastRenewal) * (ttl/3 + 1))
				synctest.Wait()
				gate.Fail(errDown)
				time.Sleep(ttl - 1)
				synctest.Wait()
				holder.wantHeld(t)
				time.Sleep(3) // each third is rounded up
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
		holder := begin(m, patient)
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

// The lease counts from the question. That its answer took long does not make it longer.
func TestASlowAnswerDoesNotLengthenTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Slow(3 * time.Second)
		begun := time.Now()
		holder := begin(m, patient)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		gate.Fail(errDown)
		<-holder.lock().Lost()
		if got, most := time.Since(begun), 3*time.Second+ttl+2; got > most {
			t.Errorf("lost after %v; want %v at most", got, most)
		}
	})
}

// mute is a store that does not answer renewals of some keys until ctx ends; or not even then.
type mute struct {
	sessionlock.Store
	keys map[sessionlock.Key]bool
	deaf chan struct{} // not nil: closed when at last it answers
}

func (s *mute) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	lease, err := s.Store.Acquire(ctx, key, token)
	if err == nil && s.keys[key] {
		lease = &muteLease{lease, s.deaf}
	}
	return lease, err
}

type muteLease struct {
	sessionlock.Lease
	deaf chan struct{}
}

func (l *muteLease) Renew(ctx context.Context) error {
	if l.deaf != nil {
		<-l.deaf
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestAServerThatHangsHoldsUpNoOtherLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &mute{Store: locktest.NewFake(ttl).Gate(), keys: map[sessionlock.Key]bool{key: true}}
		m := sessionlock.NewManager(store)
		holder := begin(m, patient)
		all := many(t, m, 100)
		time.Sleep(ttl + 2)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrLost)
		time.Sleep(time.Minute)
		for _, l := range all {
			if l.Err() != nil {
				t.Errorf("a lock of another server is lost: %v", l.Err())
			}
		}
		release(all)
		wantEmpty(t, m)
	})
}

func TestLeasesAreLostInTimeAlthoughEveryRenewalHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &mute{Store: locktest.NewFake(ttl).Gate(), keys: make(map[sessionlock.Key]bool), deaf: make(chan struct{})}
		m := sessionlock.NewManager(store)
		for i := range 100 {
			store.keys[sessionlock.KeyFor(nil, "many", fmt.Append(nil, i))] = true
		}
		all := many(t, m, 100)
		time.Sleep(ttl + 2)
		synctest.Wait()
		for _, l := range all {
			if !errors.Is(l.Err(), sessionlock.ErrLost) {
				t.Fatalf("got error %v of a lock; want ErrLost", l.Err())
			}
		}
		again := many(t, m, 1)
		close(store.deaf) // the late answers are for leases that are over
		synctest.Wait()
		if err := again[0].Err(); err != nil {
			t.Errorf("got error %v of the lock that came after; want none", err)
		}
		release(again)
		wantEmpty(t, m)
	})
}
