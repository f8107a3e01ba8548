package sessionlock_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
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
			t.Errorf("got the snapshot %+v; want one that is held locally, and two waiters", got)
		}
		time.Sleep(3 * ttl) // it has no lease to lose
		synctest.Wait()
		first.release()
		second.wantLocal(t, true)
		third.wantWaits(t)
		gate.Fail(nil)
		second.release()
		third.wantLocal(t, false)
		if got := gate.Counts(); got.Acquire != 3 || got.Renew != 0 {
			t.Errorf("got %+v; want each turn to ask the store, and nothing to renew", got)
		}
		third.release()
		first.wantLocalAfterwards(t)
		wantEmpty(t, m)
	})
}

func (a *attempt) wantLocalAfterwards(t *testing.T) {
	t.Helper()
	if !a.lock().Local() || a.lock().Err() != nil {
		t.Errorf("after its end: got local %v, error %v; want true and none", a.lock().Local(), a.lock().Err())
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

// The policy is that of who asks: another in the same queue may want no lock that is none.
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

// A manager that waited in the store's line, and got the lock without it, withdraws.
func TestWhoHoldsLocallyWithdrawsFromTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		elsewhere := begin(t, sessionlock.NewManager(server.Gate()), patient)
		waiter := begin(t, m, lenient)
		waiter.wantWaits(t)
		gate.Fail(errDown)
		time.Sleep(time.Second)
		synctest.Wait()
		waiter.wantLocal(t, true)
		gate.Fail(nil)
		waiter.release()
		if got := gate.Counts(); got.Withdraw != 1 {
			t.Errorf("got %+v; want one withdrawal", got)
		}
		elsewhere.release()
		wantEmpty(t, m)
	})
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
