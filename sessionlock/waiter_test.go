package sessionlock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// calls counts the calls of OnWaiter.
type calls chan struct{}

func (c calls) policy() sessionlock.Policy {
	return sessionlock.Policy{MaxWait: time.Hour, OnWaiter: func() { c <- struct{}{} }}
}

func (c calls) want(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if got := len(c); got != want {
		t.Errorf("got %d reports of waiters, want %d", got, want)
	}
}

func TestAHolderIsToldOnceThatSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, two := local(), make(calls, 10), make(calls, 10)
		first := begin(t, m, one.policy())
		one.want(t, 0)
		if first.lock().WaitedFor() {
			t.Error("a lock is said to be waited for before anyone waits")
		}
		second := begin(t, m, two.policy())
		if !first.lock().WaitedFor() {
			t.Error("a lock is not said to be waited for")
		}
		third := begin(t, m, reader)
		one.want(t, 1)
		two.want(t, 0) // it waits itself
		first.release()
		second.wantHeld(t)
		two.want(t, 1) // the one that waited before its hold began
		if !second.lock().WaitedFor() {
			t.Error("a lock that was waited for before its hold began is not said to be")
		}
		late := begin(t, m, patient)
		two.want(t, 1)
		second.release()
		third.release() // no hold ends: it only read
		late.release()
		one.want(t, 1)
		wantEmpty(t, m)
	})
}

func TestALockMayBeHeldForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		holder := begin(t, m, patient)
		holder.lock().HoldFor(path("/after"))
		if got := m.Snapshot()[0].Holder.Path; got != "/after" {
			t.Errorf("got holder %q, want the one that the lock was handed to", got)
		}
		holder.release()
		holder.lock().HoldFor(nil) // of a lock that has ended: nothing
		wantEmpty(t, m)
	})
}
