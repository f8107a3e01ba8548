package sessionlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

func TestTheQueueIsFirstInFirstOut(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10} {
		t.Run(fmt.Sprintf("%d waiters", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := local()
				queue := []*attempt{begin(t, m, patient)}
				for range n {
					queue = append(queue, begin(t, m, patient))
				}
				for i, a := range queue {
					a.wantHeld(t)
					for _, later := range queue[i+1:] {
						later.wantWaits(t)
					}
					a.release()
				}
				wantEmpty(t, m)
			})
		})
	}
}

func TestTheLockIsHandedOnWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, gate, m := remote(10 * time.Second)
		queue := []*attempt{begin(t, m, patient), begin(t, m, patient), begin(t, m, reader), begin(t, m, patient)}
		for _, a := range queue {
			a.wantHeld(t)
			a.release()
		}
		got := gate.Counts()
		if got.Acquire != 1 || got.Release != 1 || got.Withdraw != 0 {
			t.Errorf("got %+v, want one acquire and one release", got)
		}
		wantEmpty(t, m)
	})
}

func TestAWaitEndsAtMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		holder := begin(t, m, patient)
		short := begin(t, m, sessionlock.Policy{MaxWait: 3 * time.Second})
		long := begin(t, m, sessionlock.Policy{MaxWait: 5 * time.Second})
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		short.wantWaits(t)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		got := short.wantError(t, sessionlock.ErrMaxWait)
		if got.Waited != 3*time.Second || got.BlockedBy.Path != "/" {
			t.Errorf("got %v behind %q, want 3s behind the holder", got.Waited, got.BlockedBy.Path)
		}
		time.Sleep(time.Second)
		holder.release()
		long.wantHeld(t)
		if got, want := long.lock().Waited(), 4*time.Second; got != want {
			t.Errorf("waited %v, want %v", got, want)
		}
		if got, want := long.lock().BlockedBy(), path("/").Describe(); got != want {
			t.Errorf("waited behind %+v, want %+v", got, want)
		}
		long.release()
		wantEmpty(t, m)
	})
}

func TestMaxWaitZeroDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(10 * time.Second)
		now := sessionlock.Policy{}
		here := begin(t, m, now)
		here.wantHeld(t)
		begin(t, m, now).wantError(t, sessionlock.ErrMaxWait)
		other := server.Gate()
		begin(t, sessionlock.NewManager(other), now).wantError(t, sessionlock.ErrMaxWait)
		if got := other.Counts(); got.Acquire != 1 || got.Withdraw != 1 {
			t.Errorf("got %+v of the other gate, want one acquire that was withdrawn", got)
		}
		if got := gate.Counts(); got.Acquire != 1 {
			t.Errorf("got %+v, want one acquire", got)
		}
		here.release()
		wantEmpty(t, m)
	})
}

func TestMaxWaitersBoundsTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		two := sessionlock.Policy{MaxWait: time.Hour, MaxWaiters: 2}
		first, second, third := begin(t, m, two), begin(t, m, two), begin(t, m, two)
		begin(t, m, two).wantError(t, sessionlock.ErrTooManyWaiters)
		first.release()
		fourth := begin(t, m, two)
		fourth.wantWaits(t)
		for _, a := range []*attempt{second, third, fourth} {
			a.wantHeld(t)
			a.release()
		}
		wantEmpty(t, m)
	})
}

// A request that is about to hold the lock waits for no other, although the store has yet to answer.
func TestMaxWaitersCountsThoseThatWaitForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, gate, m := remote(10 * time.Second)
		gate.Slow(10 * time.Millisecond)
		one := sessionlock.Policy{MaxWait: time.Hour, MaxWaiters: 1}
		asking, waiting := begin(t, m, one), begin(t, m, one)
		waiting.wantWaits(t)
		begin(t, m, one).wantError(t, sessionlock.ErrTooManyWaiters)
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		asking.wantHeld(t)

		other := sessionlock.NewManager(server.Gate())
		refused := begin(t, other, one)
		begin(t, other, one).wantError(t, sessionlock.ErrTooManyWaiters)
		for _, a := range []*attempt{asking, refused, waiting} { // another gate's turn is due
			a.lock().Release()
			time.Sleep(time.Second)
			synctest.Wait()
		}
	})
}

func TestAReaderWaitsForWritersAndHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		begin(t, m, reader).wantHeld(t)
		wantEmpty(t, m)

		writer := begin(t, m, patient)
		readers := []*attempt{begin(t, m, reader), begin(t, m, reader), begin(t, m, reader)}
		next := begin(t, m, patient)
		behind := begin(t, m, reader)
		readers[1].wantWaits(t)
		writer.release()
		for _, a := range readers {
			a.wantHeld(t)
		}
		next.wantHeld(t)
		behind.wantWaits(t)
		readers[0].release() // it has nothing to release
		behind.wantWaits(t)
		if since, expires := readers[0].lock().Since(), readers[0].lock().Expires(); !since.IsZero() || !expires.IsZero() {
			t.Errorf("a reader holds since %v until %v, want never", since, expires)
		}
		next.release()
		behind.wantHeld(t)
		wantEmpty(t, m)
	})
}

func TestAWaiterThatIsCancelledLeavesTheQueue(t *testing.T) {
	for at, name := range []string{"first", "in the middle", "last"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := local()
				holder := begin(t, m, patient)
				queue := []*attempt{begin(t, m, patient), begin(t, m, patient), begin(t, m, patient)}
				gone := errors.New("the web server has hung up")
				queue[at].cancel(gone)
				synctest.Wait()
				queue[at].wantError(t, gone)
				holder.release()
				for _, a := range slices.Delete(queue, at, at+1) {
					a.wantHeld(t)
					a.release()
				}
				wantEmpty(t, m)
			})
		})
	}
}

// The waiter's turn comes, its client goes and its max wait ends in one instant: whoever wins, the turn goes on.
func TestATurnIsNeverLost(t *testing.T) {
	gone := errors.New("gone")
	for name, both := range map[string]func(holder, waiter *attempt){
		"release, then cancel": func(h, w *attempt) { h.lock().Release(); w.cancel(gone) },
		"cancel, then release": func(h, w *attempt) { w.cancel(gone); h.lock().Release() },
		"max wait":             func(h, w *attempt) { time.Sleep(time.Second); h.lock().Release() },
		"max wait and cancel":  func(h, w *attempt) { time.Sleep(time.Second); w.cancel(gone); h.lock().Release() },
	} {
		t.Run(name, func(t *testing.T) {
			for range 100 {
				synctest.Test(t, func(t *testing.T) {
					m := local()
					holder := begin(t, m, patient)
					waiter := begin(t, m, sessionlock.Policy{MaxWait: time.Second})
					next := begin(t, m, patient)
					both(holder, waiter)
					synctest.Wait()
					if waiter.lock() != nil {
						next.wantWaits(t)
						waiter.release()
					}
					next.wantHeld(t)
					next.release()
					wantEmpty(t, m)
				})
			}
		})
	}
}

// leaving is the context of a client that goes as its turn comes: the wait has chosen the turn, not Done.
type leaving struct {
	context.Context
	gone error
}

func (c *leaving) Err() error { return c.gone }

func TestWhoHasGoneIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		gone := errors.New("gone")
		holder := begin(t, m, patient)
		ctx := &leaving{Context: t.Context()}
		waiter := startWith(ctx, m, key, patient)
		synctest.Wait()
		waiter.wantWaits(t)
		ctx.gone = gone
		holder.release()
		waiter.wantError(t, gone)
		if _, err := m.Acquire(ctx, key, nil, patient); !errors.Is(err, gone) {
			t.Errorf("got error %v, want that a caller that has gone gets no lock, although it is free", err)
		}
		wantEmpty(t, m)
	})
}

func TestSessionsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := local()
		for range 2 { // the second time there are sessions to use again
			var all []*attempt
			for i := range 1000 {
				all = append(all, start(t, m, sessionlock.KeyFor(nil, "www", fmt.Append(nil, i)), sessionlock.Policy{}))
			}
			synctest.Wait()
			for _, a := range all {
				a.wantHeld(t)
				a.release()
			}
			wantEmpty(t, m)
		}
	})
}

// unwatched is a context that must not be watched: there it costs a goroutine and two calls of the kernel.
type unwatched struct{ context.Context }

func (unwatched) Done() <-chan struct{} { panic("asked for Done") }

func TestWhoNeedNotWaitDoesNotWatchTheContext(t *testing.T) {
	server, _, m := remote(ttl)
	ctx := unwatched{t.Context()}
	l, err := m.Acquire(ctx, key, nil, patient)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]*sessionlock.Manager{"the holder's": m, "another": sessionlock.NewManager(server.Gate())} {
		if _, err := m.Acquire(ctx, key, nil, sessionlock.Policy{}); !errors.Is(err, sessionlock.ErrMaxWait) {
			t.Errorf("in %s manager: got error %v, want ErrMaxWait", name, err)
		}
	}
	l.Release()
}

func TestALockThatIsOverIsNotKeptInMemory(t *testing.T) {
	m := local()
	over := func() weak.Pointer[sessionlock.Lock] {
		l, err := m.Acquire(t.Context(), key, nil, sessionlock.Policy{Expiry: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		return weak.Make(l)
	}()
	runtime.GC()
	if over.Value() != nil {
		t.Error("the lock is still in memory, want nothing to keep it until its expiry")
	}
}
