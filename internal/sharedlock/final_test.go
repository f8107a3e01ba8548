package sharedlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// refuser is a server that refuses the next takes, as a memcached that is out of memory does.
type refuser struct {
	kv.Server
	refusals atomic.Int32 // yet to come
}

func (r *refuser) Take(until time.Time, it *kv.Item, names ...string) ([]*kv.Item, error) {
	if r.refusals.Load() > 0 {
		r.refusals.Add(-1)
		return nil, fmt.Errorf("write: %w: out of memory", kv.ErrMalformed)
	}
	return r.Server.Take(until, it, names...)
}

// A final answer of the store ends the wait of one request. The next of its queue may get another answer, and must not
// wait for a look that is no longer due.
func TestAFinalAnswerLeavesTheNextInTheQueueToTry(t *testing.T) {
	t.Parallel()
	const requests = 4
	for _, c := range []struct {
		name  string
		final func(m *memory, r *refuser) // what makes the first answers final, and then ends
		fails int                         // requests that it fails
	}{
		{"refused, but not again", func(_ *memory, r *refuser) { r.refusals.Store(1) }, 0},
		{"refused to one", func(_ *memory, r *refuser) { r.refusals.Store(2) }, 1},
		{"refused to all but the last", func(_ *memory, r *refuser) { r.refusals.Store(2 * (requests - 1)) }, requests - 1},
		{"silent for a moment", func(m *memory, _ *refuser) {
			m.freeze(true)
			time.AfterFunc(time.Second, func() { m.freeze(false) })
		}, 0},
		{"away", func(m *memory, _ *refuser) {
			m.freeze(true)
			time.AfterFunc(2*time.Second, func() { m.freeze(false) })
		}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(&fates{prompt: true, latency: time.Millisecond})
				var r *refuser
				o := sharedlock.Options{Timeout: testTimeout, Lease: testLease, MaxPollRate: 10_000}
				s := sharedlock.New(o, func(h kv.Hooks) kv.Server {
					r = &refuser{Server: m.open(h)}
					return r
				})
				defer closeStore(t, s)
				time.Sleep(time.Second)
				m.lose()
				time.Sleep(200 * time.Millisecond) // the loss is noticed, and a grace is on, in which all wait
				failed, waited := queue(t, sessionlock.NewManager(s), requests, func() { c.final(m, r) })
				if c.fails >= 0 && failed != c.fails {
					t.Errorf("%d requests failed, want %d", failed, c.fails)
				}
				if waited > 5*time.Second {
					t.Errorf("a request waited for %v, want the lock or an error as soon as the server answers", waited)
				}
			})
		})
	}
}

// queue has so many requests wait for a lock, and calls then. It returns how many of them failed because of the store,
// and the longest wait.
func queue(t *testing.T, locks *sessionlock.Manager, n int, then func()) (failed int, longest time.Duration) {
	t.Helper()
	errs := make(chan error, n)
	begun := time.Now()
	for range n {
		go func() {
			l, err := locks.Acquire(context.Background(), sessionlock.Key{1}, nil, sessionlock.Policy{MaxWait: time.Minute})
			if err == nil {
				l.Release()
			}
			errs <- err
		}()
		synctest.Wait()
	}
	then()
	for range n {
		if err := <-errs; errors.Is(err, sessionlock.ErrStore) {
			failed++
		} else if err != nil {
			t.Errorf("got error %v, want the lock or a store error", err)
		}
	}
	return failed, time.Since(begun)
}
