package handover

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// process is one of two or more that hand their locks on.
type process struct {
	t     *testing.T
	store *sessionlock.Local
	locks *sessionlock.Manager
	path  string
}

func newProcess(t *testing.T) *process {
	p := &process{t: t, store: sessionlock.NewLocal(), path: filepath.Join(t.TempDir(), "s")}
	p.locks = sessionlock.NewManager(p.store)
	return p
}

// offer offers the locks of p until the test ends.
func (p *process) offer() *Offer {
	p.t.Helper()
	l, err := net.Listen("unix", p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	o := NewOffer(l, p.store, p.locks)
	p.t.Cleanup(o.Close)
	return o
}

// take takes the locks of an older process.
func (p *process) take(from *process) *Taken {
	p.t.Helper()
	nc, err := net.Dial("unix", from.path)
	if err != nil {
		p.t.Fatal(err)
	}
	taken, err := Take(nc, p.locks)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { nc.Close() })
	return taken
}

func keyOf(n int) (k sessionlock.Key) {
	binary.BigEndian.PutUint64(k[:], uint64(n)*0x9e3779b97f4a7c15)
	return k
}

type named string

func (n named) Describe() sessionlock.Description { return sessionlock.Description{Path: string(n)} }

func (p *process) acquire(key sessionlock.Key, by string) *sessionlock.Lock {
	p.t.Helper()
	l, err := p.locks.Acquire(p.t.Context(), key, named(by), sessionlock.Policy{MaxWait: hang})
	if err != nil {
		p.t.Fatal(err)
	}
	return l
}

// later acquires a lock in the background.
func (p *process) later(key sessionlock.Key, by string) <-chan *sessionlock.Lock {
	got := make(chan *sessionlock.Lock, 1)
	n := p.waiters(key)
	go func() { got <- p.acquire(key, by) }()
	p.await("a request waits", func() bool { return p.waiters(key) > n || len(got) > 0 })
	return got
}

func (p *process) state(key sessionlock.Key) (s sessionlock.SessionState) {
	for _, s := range p.locks.Snapshot() {
		if s.Key == key {
			return s
		}
	}
	return s
}

func (p *process) waiters(key sessionlock.Key) int { return len(p.state(key).Waiters) }

// hang is only there so that a test which hangs ends.
const hang = 20 * time.Second

func (p *process) await(what string, so func() bool) {
	p.t.Helper()
	for end := time.Now().Add(hang); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func receive[T any](t *testing.T, what string, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(hang):
		t.Fatalf("waited in vain: %s", what)
	}
	return v
}

// waits fails the test if the lock is there although another request holds it.
func waits(t *testing.T, what string, l <-chan *sessionlock.Lock) {
	t.Helper()
	select {
	case <-l:
		t.Fatalf("%s has the lock, want it to wait", what)
	case <-time.After(20 * time.Millisecond):
	}
}

func TestRequestsOfTheNewProcessWaitForThoseOfTheOld(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	first := older.acquire(keyOf(1), "first")
	second := older.later(keyOf(1), "second")
	older.offer()
	taken := newer.take(older)
	if got := newer.state(keyOf(1)).Holder.Path; got != "first" {
		t.Errorf("the new process shows %q as the holder, want that of the old one", got)
	}
	third := newer.later(keyOf(1), "third")
	first.Release()
	l := receive(t, "the second", second)
	waits(t, "the third", third)
	l.Release()
	receive(t, "the third", third).Release()
	newer.await("nothing is held for the old process", func() bool { return taken.Len() == 0 })
	newer.acquire(keyOf(2), "of another session").Release()
}

func TestTheOldProcessAsksTheNewOneForLocks(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	older.offer()
	newer.take(older)
	l := newer.acquire(keyOf(1), "of the new")
	old := older.later(keyOf(1), "of the old")
	waits(t, "the old process", old)
	next := newer.later(keyOf(1), "the next")
	l.Release()
	l = receive(t, "the old process", old)
	waits(t, "the next", next)
	l.Release()
	receive(t, "the next", next).Release()
}

func TestAWaiterOfTheOldProcessThatGoesLeavesNoLock(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	older.offer()
	taken := newer.take(older)
	l := newer.acquire(keyOf(1), "of the new")
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := older.locks.Acquire(ctx, keyOf(1), named("gone"), sessionlock.Policy{MaxWait: hang})
		gone <- err
	}()
	newer.await("the old process waits", func() bool { return newer.waiters(keyOf(1)) == 1 })
	cancel()
	if err := receive(t, "the waiter's end", gone); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	newer.await("it waits no longer", func() bool { return newer.waiters(keyOf(1)) == 0 && taken.Len() == 0 })
	l.Release()
	newer.acquire(keyOf(1), "next").Release()
}

func TestLocksEndWithTheOldProcess(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	older.acquire(keyOf(1), "first")
	o := older.offer()
	taken := newer.take(older)
	next := newer.later(keyOf(1), "next")
	waits(t, "the next", next)
	o.Close() // as the end of its process would do
	receive(t, "the next", next).Release()
	receive(t, "the end", taken.Done())
}

func TestTheOldProcessGoesOnIfTheNewOneEnds(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	held := older.acquire(keyOf(1), "held")
	older.offer()
	taken := newer.take(older)
	newer.acquire(keyOf(2), "of the new")
	old := older.later(keyOf(2), "of the old")
	waits(t, "the old process", old)
	taken.conn.Close()
	receive(t, "the old process", old)

	next := newProcess(t)
	next.take(older)
	for n := 1; n <= 2; n++ {
		if !next.state(keyOf(n)).Held {
			t.Errorf("lock %d is free for the next process, want it to be held", n)
		}
	}
	l := next.later(keyOf(1), "next")
	held.Release()
	receive(t, "the next process", l)
}

func TestLocksAreHandedOnTwice(t *testing.T) {
	first, second, third := newProcess(t), newProcess(t), newProcess(t)
	held := first.acquire(keyOf(1), "of the first")
	first.offer()
	second.take(first)
	middle := second.later(keyOf(1), "of the second")
	second.offer()
	third.take(second)
	asked := first.later(keyOf(2), "of the first, later")
	receive(t, "a free lock", asked).Release()
	last := third.later(keyOf(1), "of the third")
	held.Release()
	l := receive(t, "the second", middle)
	waits(t, "the third", last)
	l.Release()
	receive(t, "the third", last).Release()
}

func TestALockThatIsBrokenInTheNewProcessEndsInTheOld(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	held := older.acquire(keyOf(1), "held")
	second := older.later(keyOf(1), "second")
	older.offer()
	newer.take(older)
	third := newer.later(keyOf(1), "third")
	if !newer.locks.Break(keyOf(1)) {
		t.Fatal("there is no lock to break")
	}
	l := receive(t, "the third", third)
	receive(t, "the end of the broken lock", held.Lost())
	if err := held.Err(); !errors.Is(err, sessionlock.ErrBroken) {
		t.Errorf("got %v, want ErrBroken", err)
	}
	waits(t, "the second", second)
	l.Release()
	receive(t, "the second", second).Release()
}

// A request of the new process may wait for any lock of the old one, and the old one does not see it. So each lock there
// is held as if a request waited: its script is watched, and holds the next up no longer than it has its session open.
func TestEachLockOfTheOldProcessIsHeldAsIfARequestWaited(t *testing.T) {
	older, newer := newProcess(t), newProcess(t)
	notified := make(chan string, 9)
	begin := func(key sessionlock.Key, by string) <-chan *sessionlock.Lock {
		got := make(chan *sessionlock.Lock, 1)
		go func() {
			l, err := older.locks.Acquire(t.Context(), key, named(by),
				sessionlock.Policy{MaxWait: hang, OnWaiter: func() { notified <- by }})
			if err != nil {
				t.Error(err)
			}
			got <- l
		}()
		return got
	}
	wantNotified := func(by string) {
		t.Helper()
		if got := receive(t, by+" is notified of a waiter", notified); got != by {
			t.Errorf("%q was notified of a waiter, want %q", got, by)
		}
	}
	held := receive(t, "the lock", begin(keyOf(1), "held before"))
	older.offer()
	newer.take(older)
	wantNotified("held before")

	next := begin(keyOf(1), "handed on")
	older.await("it waits", func() bool { return older.waiters(keyOf(1)) == 1 })
	held.Release()
	held = receive(t, "the lock that is handed on", next)
	wantNotified("handed on")
	last := newer.later(keyOf(1), "of the new")
	held.Release()
	receive(t, "the new process", last).Release()

	later := receive(t, "the later lock", begin(keyOf(2), "acquired later"))
	wantNotified("acquired later")
	later.Release()
}

// TestOneHolderWhileProcessesFollowEachOther runs requests in processes that hand over to each other, and never more
// than one holds a session at a time.
func TestOneHolderWhileProcessesFollowEachOther(t *testing.T) {
	const sessions, processes, requests = 5, 6, 40
	var holders [sessions]atomic.Int32
	var clash atomic.Bool
	var served atomic.Int64
	var all sync.WaitGroup
	run := func(p *process) {
		for range requests {
			n := rand.IntN(sessions)
			ctx, cancel := context.WithCancel(context.Background())
			if rand.IntN(5) == 0 {
				time.AfterFunc(time.Duration(rand.IntN(1000))*time.Microsecond, cancel)
			}
			l, err := p.locks.Acquire(ctx, keyOf(n), named("x"), sessionlock.Policy{MaxWait: hang})
			cancel()
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				continue
			}
			if holders[n].Add(1) > 1 {
				clash.Store(true)
			}
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			holders[n].Add(-1)
			l.Release()
			served.Add(1)
		}
	}
	var before *process
	for range processes {
		p := newProcess(t)
		if before != nil {
			before.offer()
			p.take(before)
		}
		for range 8 {
			all.Go(func() { run(p) })
		}
		time.Sleep(5 * time.Millisecond) // so that the processes overlap
		before = p
	}
	all.Wait()
	if clash.Load() {
		t.Error("a session had two holders at once")
	}
	if n := served.Load(); n < processes*requests {
		t.Errorf("%d requests were served", n)
	}
	before.await("no lock is left", func() bool { return len(before.locks.Snapshot()) == 0 })
}
