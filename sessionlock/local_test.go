package sessionlock_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

func TestLocalKeepsThePromises(t *testing.T) {
	t.Parallel()
	store := sessionlock.NewLocal()
	locktest.Run(t, locktest.Config{New: func(*testing.T) sessionlock.Store { return store }})
}

func TestLocalLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := sessionlock.NewLocal()
		one, other := sessionlock.NewManager(store), sessionlock.NewManager(store)
		holder, quits := begin(t, one, patient), begin(t, other, sessionlock.Policy{MaxWait: time.Second})
		holder.release() // the turn is kept for the other
		if got := store.Leases(); got != 1 {
			t.Errorf("%d leases and turns are kept, want the other's turn", got)
		}
		quits.cancel(nil)
		synctest.Wait()
		if quits.lock() != nil {
			quits.release()
		}
		if got := store.Leases(); got != 0 {
			t.Errorf("%d leases and turns are left, want none", got)
		}
		next := begin(t, one, sessionlock.Policy{})
		next.wantHeld(t)
		next.release()
		wantEmpty(t, one)
		wantEmpty(t, other)
	})
}

func TestManagersOfALocalStoreStandInLine(t *testing.T) {
	store := sessionlock.NewLocal()
	a, b, c := sessionlock.Token{'a'}, sessionlock.Token{'b'}, sessionlock.Token{'c'}
	acquire := func(token sessionlock.Token) sessionlock.Lease {
		t.Helper()
		lease, err := store.Acquire(t.Context(), key, token)
		if err != nil {
			t.Fatalf("got error %v, want the lease", err)
		}
		return lease
	}
	refused := func(token sessionlock.Token) {
		t.Helper()
		if _, err := store.Acquire(t.Context(), key, token); !errors.Is(err, sessionlock.ErrHeld) {
			t.Fatalf("got error %v, want ErrHeld", err)
		}
	}
	first := acquire(a)
	refused(b)
	refused(c)
	refused(b)
	first.Release()
	refused(a)
	refused(c)
	second := acquire(b)
	if !second.ShouldYield() {
		t.Error("no turn is due, want that of the third, which waits since before")
	}
	first.Release() // too late
	second.Release()
	refused(a)
	acquire(c).Release()
	last := acquire(a)
	if last.ShouldYield() {
		t.Error("got a due turn, want none: no other manager waits")
	}
	last.Release()
	if got := store.Leases(); got != 0 {
		t.Errorf("%d leases and turns are left, want none", got)
	}
}
