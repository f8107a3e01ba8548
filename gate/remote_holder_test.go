package gate

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// unnamed is a holder without a description.
type unnamed struct{}

func (unnamed) Describe() sessionlock.Description { return sessionlock.Description{} }

func TestASlowWaitNamesTheHostThatHoldsTheLock(t *testing.T) {
	store := sessionlock.NewLocal()
	elsewhere := sessionlock.NewManager(store)
	var asked atomic.Int64
	s := newStand(t, func(o *Options) {
		o.Locks, o.SlowWait = sessionlock.NewManager(store), 0
		o.FindHolder = func(context.Context, sessionlock.Key) (sessionlock.RemoteHolder, bool) {
			asked.Add(1)
			return sessionlock.RemoteHolder{Gate: "www", Host: "web-2"}, true
		}
	})
	key := sessionlock.KeyFor(nil, "test", phpsession.LockName([]byte("one")))
	named := func() int { return strings.Count(s.log.String(), "holder_host=web-2 holder_gate=www") }
	rounds := 0
	for ; named() == 0 && rounds < 50; rounds++ { // the wait may be over a moment before the answer has been noted
		before := asked.Load()
		lock, err := elsewhere.Acquire(t.Context(), key, unnamed{}, sessionlock.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		b := s.ask(session("one")...)
		await(t, "the store is asked who holds the lock", func() bool { return asked.Load() > before })
		lock.Release()
		s.php.next().end(page + "x")
		b.want("x")
		await(t, "the request is over", func() bool { return strings.Count(s.log.String(), "request done") == rounds+1 })
		s.unlocked()
	}
	if named() == 0 {
		t.Fatalf("the host is never named:\n%s", s.log)
	}

	before := named()
	s.ask(session("two")...)
	s.php.next().end(page) // the lock was free
	await(t, "it is logged", func() bool { return strings.Count(s.log.String(), "request done") == rounds+1 })
	if got := named(); got != before {
		t.Errorf("the host is named of a request that has not waited:\n%s", s.log)
	}
}
