package sessionlock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

const ttl = 10 * time.Second

var errDown = errors.New("connection refused")

func TestAStoreErrorGoesToWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Slow(100 * time.Millisecond)
		gate.Fail(errDown)
		first, second, third := begin(t, m, patient), begin(t, m, patient), begin(t, m, patient)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		failed := first.wantError(t, sessionlock.ErrStore)
		first.wantError(t, errDown)
		if failed.Waited != 100*time.Millisecond {
			t.Errorf("waited %v, want 100ms", failed.Waited)
		}
		second.wantWaits(t)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		second.wantError(t, sessionlock.ErrStore)
		gate.Fail(nil)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		third.wantHeld(t)
		third.release()
		if got := gate.Counts(); got.Acquire != 3 || got.Withdraw != 0 {
			t.Errorf("got %+v, want each to ask once, and nothing to withdraw", got)
		}
		wantEmpty(t, m)
	})
}

// A holder needs the store only to renew: the requests after it get the lock while the store is down.
func TestTheLockIsHandedOnWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		holder, next := begin(t, m, patient), begin(t, m, patient)
		gate.Fail(errDown)
		holder.release()
		next.wantHeld(t)
		next.release()
		begin(t, m, patient).wantError(t, sessionlock.ErrStore)
		wantEmpty(t, m)
	})
}

func TestWhoGoesDuringAQuestionGetsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(ttl)
		gate.Slow(100 * time.Millisecond)
		gate.Fail(errDown)
		gone := errors.New("gone")
		a := begin(t, m, patient)
		a.cancel(gone)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		a.wantError(t, gone)
		wantEmpty(t, m)
	})
}

// asked notes when it is asked, and says ErrHeld.
type asked struct {
	sessionlock.Store
	by map[sessionlock.Token][]time.Time
}

func (s *asked) Acquire(_ context.Context, _ sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	s.by[token] = append(s.by[token], time.Now())
	return nil, sessionlock.ErrHeld
}

func TestOnlyTheFirstInTheQueueAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _, _ := remote(ttl)
		store := &asked{server.Gate(), make(map[sessionlock.Token][]time.Time)}
		m := sessionlock.NewManager(store)
		var all []*attempt
		for range 5 {
			all = append(all, begin(t, m, sessionlock.Policy{MaxWait: 10 * time.Second}))
		}
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		if len(store.by) != 1 {
			t.Fatalf("%d waiters asked, want the first one only", len(store.by))
		}
		for _, times := range store.by {
			wantPauses(t, times)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		for _, a := range all {
			if got := a.wantError(t, sessionlock.ErrMaxWait).Waited; got != 10*time.Second {
				t.Errorf("waited %v, want 10s", got)
			}
		}
		wantEmpty(t, m)
	})
}

// wantPauses fails unless the pauses double from 1 ms to 50 ms, each of them random by up to half.
func wantPauses(t *testing.T, times []time.Time) {
	t.Helper()
	want := time.Millisecond
	for i := 1; i < len(times); i++ {
		if got := times[i].Sub(times[i-1]); got < want/2 || got > want {
			t.Errorf("pause %d was %v, want %v to %v", i, got, want/2, want)
		}
		want = min(2*want, 50*time.Millisecond)
	}
	if len(times) < 10 {
		t.Errorf("asked %d times, want it to go on", len(times))
	}
}

// unhurried is a store that says when to ask again.
type unhurried struct{ asked }

func (s *unhurried) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	_, _ = s.asked.Acquire(ctx, key, token)
	return nil, &sessionlock.RetryError{Err: sessionlock.ErrHeld, Again: 8 * time.Second}
}

func TestAStoreSaysWhenToAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _, _ := remote(ttl)
		store := &unhurried{asked{server.Gate(), make(map[sessionlock.Token][]time.Time)}}
		a := begin(t, sessionlock.NewManager(store), patient)
		time.Sleep(time.Minute)
		a.cancel(nil)
		synctest.Wait()
		for _, times := range store.by {
			for i := 1; i < len(times); i++ {
				if got := times[i].Sub(times[i-1]); got < 4*time.Second || got > 8*time.Second {
					t.Errorf("pause %d was %v, want 4s to 8s", i, got)
				}
			}
			if len(times) < 8 {
				t.Errorf("asked %d times in a minute, want it to go on", len(times))
			}
		}
	})
}

func TestMaxWaitCountsTheFirstQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		holder := begin(t, sessionlock.NewManager(server.Gate()), patient)
		gate.Slow(300 * time.Millisecond)
		a := begin(t, m, sessionlock.Policy{MaxWait: 301 * time.Millisecond})
		time.Sleep(time.Second)
		synctest.Wait()
		if got, most := a.wantError(t, sessionlock.ErrMaxWait).Waited, 601*time.Millisecond; got > most {
			t.Errorf("waited %v, want no more than the max wait and one question, %v", got, most)
		}
		holder.release()
		wantEmpty(t, m)
	})
}

func TestADueTurnGoesToTheOtherGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		other := sessionlock.NewManager(server.Gate())
		first, second := begin(t, m, patient), begin(t, m, patient)
		away := begin(t, other, patient)
		first.release()
		second.wantWaits(t)
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		away.wantHeld(t)
		second.wantWaits(t)
		away.release()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		second.wantHeld(t)
		second.release()
		if got := gate.Counts(); got.Release != 2 || got.Withdraw != 0 {
			t.Errorf("got %+v, want two releases, and no withdrawal of a manager that got its turn", got)
		}
		wantEmpty(t, m)
		wantEmpty(t, other)
	})
}

func TestTheLastWaiterWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(ttl)
		holder := begin(t, sessionlock.NewManager(server.Gate()), patient)
		first, last := begin(t, m, patient), begin(t, m, sessionlock.Policy{MaxWait: time.Minute})
		first.cancel(nil)
		synctest.Wait()
		if got := gate.Counts(); got.Withdraw != 0 {
			t.Errorf("got %+v, want no withdrawal while a request waits", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		last.wantError(t, sessionlock.ErrMaxWait)
		if got := gate.Counts(); got.Withdraw != 1 {
			t.Errorf("got %+v, want one withdrawal", got)
		}
		gate.Fail(errDown)
		begin(t, m, patient).wantError(t, sessionlock.ErrStore)
		if got := gate.Counts(); got.Withdraw != 1 {
			t.Errorf("got %+v, want no withdrawal of a caller that did not have to wait", got)
		}
		holder.release()
		wantEmpty(t, m)
	})
}
