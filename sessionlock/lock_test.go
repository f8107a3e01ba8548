package sessionlock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// told collects what OnLoss is called with.
type told chan error

func (c told) policy(p sessionlock.Policy) sessionlock.Policy {
	p.OnLoss = func(_ sessionlock.Description, err error) { c <- err }
	return p
}

// want fails unless OnLoss was called once, with want; or never, if that is nil.
func (c told) want(t *testing.T, want error) {
	t.Helper()
	synctest.Wait()
	var got error
	select {
	case got = <-c:
	default:
	}
	if !errors.Is(got, want) || len(c) > 0 {
		t.Errorf("OnLoss got %v, and %d more, want %v once", got, len(c), want)
	}
}

// wantLost fails unless a's lock has ended by itself: with want.
func (a *attempt) wantLost(t *testing.T, want error) {
	t.Helper()
	if err := a.lock().Err(); !errors.Is(err, want) {
		t.Errorf("got error %v of the lock, want %v", err, want)
	}
	select {
	case <-a.lock().Lost():
	default:
		t.Error("Lost is not closed")
	}
}

func TestALockExpiresAndIsHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, loss := local(), make(told, 10)
		minute := loss.policy(sessionlock.Policy{MaxWait: time.Hour, Expiry: time.Minute})
		holder, next, last := begin(t, m, minute), begin(t, m, minute), begin(t, m, patient)
		since := holder.lock().Since()
		if got, want := holder.lock().Expires(), since.Add(time.Minute); !got.Equal(want) {
			t.Errorf("expires at %v, want %v", got, want)
		}
		lost := holder.lock().Lost() // one caller asked before, and one asks afterwards
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		holder.wantHeld(t)
		next.wantWaits(t)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrExpired)
		<-lost
		loss.want(t, sessionlock.ErrExpired)
		next.wantHeld(t)
		if got := next.lock().Since().Sub(since); got != time.Minute {
			t.Errorf("the next hold began after %v, want a minute: expiry counts from the acquire", got)
		}

		holder.release() // too late: it is the next one's now
		next.wantHeld(t)
		last.wantWaits(t)
		next.release()
		last.wantHeld(t)
		last.release()
		time.Sleep(time.Hour)
		loss.want(t, nil)
		wantEmpty(t, m)
	})
}

func TestALockWithoutExpiryIsHeldForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, m := remote(10 * time.Second)
		holder := begin(t, m, patient)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		holder.wantHeld(t)
		if got := holder.lock().Expires(); !got.IsZero() {
			t.Errorf("expires at %v, want never", got)
		}
		holder.release()
		wantEmpty(t, m)
	})
}

func TestAReleasedLockIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, loss := local(), make(told, 10)
		a := begin(t, m, loss.policy(sessionlock.Policy{Expiry: time.Minute}))
		lost := a.lock().Lost()
		a.release()
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case <-lost:
			t.Error("Lost is closed")
		case <-a.lock().Lost():
			t.Error("Lost is closed for a caller that asks late")
		default:
		}
		if err := a.lock().Err(); err != nil {
			t.Errorf("got error %v of the lock, want none", err)
		}
		loss.want(t, nil)
	})
}

func TestReleaseAndExpiryInOneInstant(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			m := local()
			second := sessionlock.Policy{MaxWait: time.Hour, Expiry: time.Second}
			holder, next, last := begin(t, m, second), begin(t, m, second), begin(t, m, second)
			go func() {
				time.Sleep(time.Second)
				holder.lock().Release()
			}()
			time.Sleep(time.Second)
			synctest.Wait()
			next.wantHeld(t)
			last.wantWaits(t)
			next.release()
			last.release()
			wantEmpty(t, m)
		})
	}
}

func TestBreakEndsALock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, _, m := remote(10 * time.Second)
		loss := make(told, 10)
		if m.Break(key) {
			t.Error("broke a free lock")
		}
		holder, next := begin(t, m, loss.policy(patient)), begin(t, m, patient)
		elsewhere := sessionlock.NewManager(server.Gate())
		waiter := begin(t, elsewhere, sessionlock.Policy{MaxWait: time.Second})
		if elsewhere.Break(key) {
			t.Error("broke a lock that another process holds")
		}
		waiter.cancel(nil)
		synctest.Wait()
		if !m.Break(key) {
			t.Error("did not break the lock")
		}
		synctest.Wait()
		holder.wantLost(t, sessionlock.ErrBroken)
		loss.want(t, sessionlock.ErrBroken)
		next.wantHeld(t)
		holder.release()
		next.wantHeld(t)
		next.release()
		wantEmpty(t, m)
	})
}

// OnLoss may use locks in any way.
func TestOnLossMayUseTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		lost, again := make(chan *sessionlock.Lock, 1), make(chan error, 1)
		holder := begin(t, m, sessionlock.Policy{Expiry: time.Second, OnLoss: func(sessionlock.Description, error) {
			(<-lost).Release()
			l, err := m.Acquire(context.Background(), key, nil, patient)
			if err == nil {
				l.Release()
			}
			again <- err
		}})
		lost <- holder.lock()
		if err := <-again; err != nil {
			t.Errorf("got error %v, want the lock again", err)
		}
		wantEmpty(t, m)
	})
}

func TestTokensTellHoldsAndManagersApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other := local(), local()
		a, b, c := begin(t, one, patient), begin(t, one, patient), begin(t, other, patient)
		a.release()
		ta, tb, tc := a.lock().Token(), b.lock().Token(), c.lock().Token()
		if ta == tb || ta == tc || tb == tc {
			t.Errorf("got tokens %v, %v and %v, want all different", ta, tb, tc)
		}
		if ta.Manager() != tb.Manager() || ta.Manager() == tc.Manager() {
			t.Errorf("got managers %x, %x and %x, want the first two alike", ta.Manager(), tb.Manager(), tc.Manager())
		}
		if got := len(ta.String()); got != 32 {
			t.Errorf("a token has %d digits, want 32", got)
		}
		if la, lb, lc := a.lock().LeaseToken(), b.lock().LeaseToken(), c.lock().LeaseToken(); la != ta || lb != ta || lc != tc {
			t.Errorf("got lease tokens %v, %v and %v, want the second lock's lease to be the first one's", la, lb, lc)
		}
		b.release()
		c.release()
	})
}

func TestALossNamesItsHolderIfThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		for _, c := range []struct {
			by   sessionlock.Holder
			want sessionlock.Description
		}{
			{nil, sessionlock.Description{}},
			{script("/report.php"), sessionlock.Description{Script: "/report.php"}},
		} {
			named := make(chan sessionlock.Description, 1)
			p := sessionlock.Policy{Expiry: time.Second, OnLoss: func(holder sessionlock.Description, _ error) { named <- holder }}
			if _, err := m.Acquire(t.Context(), key, c.by, p); err != nil {
				t.Fatal(err)
			}
			if got := <-named; got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		}
	})
}

// script is a holder that is known by its script.
type script string

func (s script) Describe() sessionlock.Description { return sessionlock.Description{Script: string(s)} }
