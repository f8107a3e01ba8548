package sharedlock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The attempt to take a lock is refused with an answer that leaves it in doubt, so that it is looked up later, a second
// time after a second. Its request has the lock locally from the same millisecond on, and gets a lease before that
// second look: the lease's item is no stray of the attempt. Without it another host would have the lock, too.
func TestALookAtAnAttemptInDoubtSparesTheLeaseThatFollows(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"one server": 1, "a quorum": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var servers []*memory
				var open []kv.Open
				for range n {
					m := newMemory(&fates{prompt: true})
					servers = append(servers, m)
					open = append(open, func(h kv.Hooks) kv.Server {
						r := &refuser{Server: m.open(h)}
						r.refusals.Store(2) // the store retries once without a pause
						return r
					})
				}
				o := sharedlock.Options{Timeout: testTimeout, Lease: testLease, Quorum: n > 1, MaxPollRate: 10_000}
				s := sharedlock.New(o, open...)
				defer closeStore(t, s)
				time.Sleep(time.Second)
				key := sessionlock.Key{1}
				p := sessionlock.Policy{HoldLocally: true}
				l, err := sessionlock.NewManager(s).Acquire(context.Background(), key, nil, p)
				if err != nil || !l.Local() {
					t.Fatalf("got error %v, want the lock held locally", err)
				}
				for range 30 {
					time.Sleep(50 * time.Millisecond)
					synctest.Wait()
					for i, m := range servers {
						if !l.Local() && m.value(key.String()) == "" {
							t.Fatalf("the lock is held with a lease, and server %d has none", i)
						}
					}
				}
				if l.Local() {
					t.Error("the lock is held locally, and the servers answer again")
				}
				l.Release()
				time.Sleep(time.Second)
			})
		})
	}
}
