package sharedlock_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// What can go wrong in between, each in the one order in which it does.

func TestStoresInMemoryKeepThePromises(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"one server": 1, "a quorum": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var servers []*memory
			for range n {
				servers = append(servers, newMemory(&fates{prompt: true}))
			}
			locktest.Run(t, locktest.Config{
				New: func(t *testing.T) sessionlock.Store {
					s := newStore(0, servers...)
					t.Cleanup(func() { closeStore(t, s) })
					return s
				},
				Tolerance: 10 * time.Second,
				Drop: func(_ *testing.T, key sessionlock.Key) {
					for _, m := range servers {
						m.mu.Lock()
						delete(m.items, key.String())
						m.mu.Unlock()
					}
				},
			})
		})
	}
}

// journal keeps the events of a store.
type journal struct {
	mu   sync.Mutex
	seen []sharedlock.EventKind
}

func (j *journal) add(e sharedlock.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seen = append(j.seen, e.Kind)
}

func (j *journal) count(kind sharedlock.EventKind) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, k := range j.seen {
		if k == kind {
			n++
		}
	}
	return n
}

// pair is two gates on one server: the first one's client, and what it reports, are for the test to look at.
type pair struct {
	memory *memory
	client *client
	events *journal
	stores [2]*sharedlock.Store
	gates  [2]*sessionlock.Manager
}

func newPair(t *testing.T) *pair {
	p := &pair{memory: newMemory(&fates{prompt: true, latency: time.Millisecond}), events: new(journal)}
	o := sharedlock.Options{Timeout: testTimeout, Lease: testLease, MaxPollRate: 10_000, OnEvent: p.events.add}
	p.stores[0] = sharedlock.New(o, func(h kv.Hooks) kv.Server {
		p.client = p.memory.client(h)
		return p.client
	})
	p.stores[1] = newStore(1, p.memory)
	for i, s := range p.stores {
		p.gates[i] = sessionlock.NewManager(s)
	}
	time.Sleep(time.Second)
	return p
}

func (p *pair) shut(t *testing.T) {
	time.Sleep(testLease)
	if names := p.memory.names(); len(names) > 0 {
		t.Errorf("the server still has %q", names)
	}
	for _, s := range p.stores {
		closeStore(t, s)
	}
	synctest.Wait()
}

func mustAcquire(t *testing.T, m *sessionlock.Manager, key sessionlock.Key) *sessionlock.Lock {
	t.Helper()
	l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{MaxWait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantHeld(t *testing.T, m *sessionlock.Manager, key sessionlock.Key) {
	t.Helper()
	l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{})
	if err == nil {
		l.Release()
	}
	if !errors.Is(err, sessionlock.ErrMaxWait) {
		t.Errorf("got error %v, want the lock held", err)
	}
}

// The server is restarted, and the gate notices it, at any moment between the answer to a take and the note of the
// lease: whoever adds the leases again does not find this one. It is not granted, or it is added again by the gate that
// has just noted it, and not only when it is renewed, as another gate could have the lock long before.
func TestALeaseThatIsLostBeforeItIsNotedIsAddedAgain(t *testing.T) {
	t.Parallel()
	restored := 0
	for moment := 1; moment <= 3; moment++ {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t)
			defer p.shut(t)
			key := sessionlock.Key{1}
			p.client.loseAfter = moment
			l := mustAcquire(t, p.gates[0], key)
			time.Sleep(200 * time.Millisecond)
			if p.memory.value(key.String()) == "" {
				t.Errorf("moment %d: the lock is held and the server has no lease", moment)
			}
			time.Sleep(testGrace) // sooner than a renewal
			wantHeld(t, p.gates[1], key)
			if err := l.Err(); err != nil {
				t.Errorf("moment %d: got error %v, want it held", moment, err)
			}
			restored += p.events.count(sharedlock.LeaseRegained)
			l.Release()
			time.Sleep(time.Second)
			if n := p.events.count(sharedlock.ServerForgot); n != 1 {
				t.Errorf("moment %d: the restart was noticed %d times, want once", moment, n)
			}
		})
	}
	if restored == 0 {
		t.Error("no lease was lost in between, want a test that does more")
	}
}

// Right after a loss of all items, no other gate can have had the lock, and the lease is restored. An item that is
// missing by itself may have been another gate's in between, which is a loss.
func TestAMissingLeaseIsALossUnlessAllHaveJustBeenLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm       func(*pair, sessionlock.Key)
		want, none sharedlock.EventKind
		lost       uint64
	}{
		"all items": {func(p *pair, _ sessionlock.Key) { p.memory.lose() }, sharedlock.LeaseRegained, sharedlock.LeaseGone, 0},
		"one item": {func(p *pair, key sessionlock.Key) {
			p.memory.mu.Lock()
			defer p.memory.mu.Unlock()
			delete(p.memory.items, key.String())
		}, sharedlock.LeaseGone, sharedlock.LeaseRegained, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				defer p.shut(t)
				key := sessionlock.Key{1}
				l := mustAcquire(t, p.gates[0], key)
				c.harm(p, key)
				time.Sleep(testLease / 2) // a renewal
				if p.events.count(c.want) != 1 || p.events.count(c.none) != 0 {
					t.Errorf("got the events %v, want %v", p.events.seen, c.want)
				}
				stats := p.stores[0].Stats()
				if stats.Lost != c.lost || stats.Servers[0].Regained != 1 {
					t.Errorf("got %+v, want %d lost, 1 added again", stats, c.lost)
				}
				l.Release()
			})
		})
	}
}

// A gate's machine is paused, and its clock has not counted that: the gate trusts leases that have ended, and another
// gate may have the lock. Its next renewal finds that out, whether the other one still has the lock or no longer.
func TestAPauseThatNoClockCountsIsFoundAtTheNextRenewal(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		released bool
		want     sharedlock.EventKind
		err      error
	}{
		"another gate has the lock": {false, sharedlock.LeaseLost, sessionlock.ErrLost},
		"another gate had the lock": {true, sharedlock.LeaseGone, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t)
				defer p.shut(t)
				key := sessionlock.Key{1}
				paused := mustAcquire(t, p.gates[0], key)
				p.memory.age(2 * testLease)
				other := mustAcquire(t, p.gates[1], key)
				if c.released {
					other.Release()
				}
				time.Sleep(p.stores[0].TTL()/3 + 100*time.Millisecond)
				if err := paused.Err(); !errors.Is(err, c.err) {
					t.Errorf("got error %v of the lock, want %v", err, c.err)
				}
				if n := p.events.count(c.want); n != 1 || p.stores[0].Stats().Lost != 1 {
					t.Errorf("got the events %v and %d leases lost, want %v", p.events.seen, p.stores[0].Stats().Lost, c.want)
				}
				if err := other.Err(); err != nil {
					t.Errorf("got error %v of the other gate's lock, want it held", err)
				}
				paused.Release()
				other.Release()
			})
		})
	}
}

// A take gets no answer, and is done when its caller no longer waits. What it leaves is deleted soon, and not only
// when its lease ends.
func TestAWriteInDoubtLeavesNothing(t *testing.T) {
	t.Parallel()
	for range 20 { // it is late by this or that
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t)
			defer p.shut(t)
			key := sessionlock.Key{1}
			p.memory.fates.bePrompt(false)
			ctx, cancel := context.WithCancel(context.Background())
			var waiter sync.WaitGroup
			waiter.Go(func() {
				if l, err := p.gates[0].Acquire(ctx, key, nil, sessionlock.Policy{MaxWait: time.Minute}); err == nil {
					t.Errorf("got the lock %v of a server that does not answer", l.Key())
				}
			})
			synctest.Wait()
			if !p.memory.fates.next(rand.New(rand.NewPCG(1, 1)), silentLate) {
				t.Fatal("nothing was asked")
			}
			cancel()
			waiter.Wait()
			p.memory.fates.bePrompt(true)
			time.Sleep(lateBy + 1500*time.Millisecond) // a second look, with the next heartbeat
			if got := p.memory.value(key.String()); got != "" {
				t.Errorf("the server still has %q", got)
			}
		})
	}
}

// A release is still under way when its gate wants the lock again: nothing is asked of the server before the release is
// over, and then the lock is had at the first attempt. Other locks do not wait.
func TestAnAcquireComesAfterTheReleaseBeforeIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.shut(t)
		key, rng := sessionlock.Key{1}, rand.New(rand.NewPCG(1, 1))
		l := mustAcquire(t, p.gates[0], key)
		p.memory.fates.bePrompt(false)
		l.Release()
		synctest.Wait()
		got := make(chan *sessionlock.Lock, 2)
		acquire := func(key sessionlock.Key) {
			l, err := p.gates[0].Acquire(context.Background(), key, nil, sessionlock.Policy{}) // at once, or never
			if err != nil {
				t.Errorf("lock %v: %v", key, err)
			}
			got <- l
		}
		go acquire(key)
		synctest.Wait()
		if n := p.memory.fates.waiting(); n != 1 {
			t.Errorf("%d requests are under way, want that of the release only", n)
		}
		go acquire(sessionlock.Key{2})
		synctest.Wait()
		if n := p.memory.fates.waiting(); n != 2 {
			t.Errorf("%d requests are under way, want that of the other lock, too", n)
		}
		for p.memory.fates.next(rng, done) {
			synctest.Wait()
		}
		p.memory.fates.bePrompt(true)
		for range 2 {
			if l := <-got; l != nil {
				l.Release()
			}
		}
	})
}

// Many gates wait for one lock, and half of them leave after a moment, whenever that is: no turn is kept for one that
// has left while others wait. It would last for two seconds.
func TestNoTurnIsKeptForAGateThatHasLeft(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) { turnsAreTaken(t, seed) })
	}
}

func turnsAreTaken(t *testing.T, seed uint64) {
	const gates, most = 16, 500 * time.Millisecond
	memory := newMemory(&fates{prompt: true, latency: time.Millisecond})
	key := sessionlock.Key{1}
	var stores []*sharedlock.Store
	var all sync.WaitGroup
	var mu sync.Mutex
	freed, turns := time.Now(), 0
	over := time.Now().Add(10 * time.Second)
	for i := range gates {
		s := newStore(i, memory)
		stores = append(stores, s)
		m, rng := sessionlock.NewManager(s), rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for time.Now().Before(over) {
				ctx, cancel := context.WithCancel(context.Background())
				if i%2 == 1 { // the others stay: there is always one that waits
					time.AfterFunc(time.Duration(rng.IntN(10_000))*time.Microsecond, cancel)
				}
				l, err := m.Acquire(ctx, key, nil, sessionlock.Policy{MaxWait: time.Minute})
				cancel()
				if err != nil {
					time.Sleep(time.Duration(rng.IntN(5)) * time.Millisecond)
					continue
				}
				mu.Lock()
				if free := l.Since().Sub(freed); free > most {
					t.Errorf("seed %d: the lock lay free for %v, want %v at most", seed, free, most)
				}
				mu.Unlock()
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
				mu.Lock()
				freed = time.Now()
				turns++
				mu.Unlock()
				l.Release()
			}
		})
	}
	all.Wait()
	if turns < 100 {
		t.Errorf("seed %d: %d turns in all, want a test that does more", seed, turns)
	}
	time.Sleep(testLease)
	for _, s := range stores {
		closeStore(t, s)
	}
	synctest.Wait()
}
