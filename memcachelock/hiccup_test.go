package memcachelock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// world is some gates on the same servers, in a bubble.
type world struct {
	*testing.T
	servers []*fakeServer
	gates   []*modelGate
}

func newWorld(t *testing.T, servers, gates int, change func(gate int, o *memcachelock.Options)) *world {
	t.Helper()
	w := &world{T: t}
	for range servers {
		s := newFakeServer(modelLatency)
		s.age()
		w.servers = append(w.servers, s)
	}
	for i := range gates {
		g := &modelGate{number: i, told: make(map[sessionlock.Token]time.Time)}
		o := optionsOf(w.servers)
		o.MaxPollRate, o.Host = 0, "host-"+strconv.Itoa(i)
		o.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
			n, _ := strconv.Atoi(address)
			nc, err := w.servers[n].dial(ctx, i)
			if err != nil {
				return nil, err
			}
			return &stoppable{Conn: nc, gate: g}, nil
		}
		if change != nil {
			change(i, &o)
		}
		var err error
		if g.store, err = memcachelock.New(o); err != nil {
			t.Fatal(err)
		}
		g.locks = sessionlock.NewManager(listener{g.store, g})
		w.gates = append(w.gates, g)
	}
	time.Sleep(time.Second)
	return w
}

func (w *world) shut() {
	for _, s := range w.servers {
		s.thaw()
		s.start()
	}
	time.Sleep(time.Second)
	for _, g := range w.gates {
		if err := g.store.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
	}
	for _, s := range w.servers {
		s.kill()
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

// hold has a gate hold n locks.
func (w *world) hold(g *modelGate, n int) (all []*sessionlock.Lock) {
	w.Helper()
	for range n {
		all = append(all, lockSoon(w.T, g.locks, newKey(w.T)))
	}
	return all
}

// waiters wait for locks.
type waiters struct {
	mu    sync.Mutex
	got   []*sessionlock.Lock
	local int
	since []time.Time // when the local ones began
	errs  map[string]int
	all   sync.WaitGroup
}

func (w *world) wait(g *modelGate, locks []*sessionlock.Lock, p sessionlock.Policy) *waiters {
	a := &waiters{errs: make(map[string]int)}
	for _, l := range locks {
		a.all.Go(func() {
			got, err := g.locks.Acquire(context.Background(), l.Key(), nil, p)
			a.mu.Lock()
			defer a.mu.Unlock()
			if err != nil {
				a.errs[errors.Unwrap(err).Error()]++
				return
			}
			a.got = append(a.got, got)
			if got.Local() {
				a.local++
				a.since = append(a.since, got.Since())
			}
		})
	}
	return a
}

func (a *waiters) count() (got, local, failed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.errs {
		failed += n
	}
	return len(a.got), a.local, failed
}

func releaseAll(locks []*sessionlock.Lock) {
	for _, l := range locks {
		l.Release()
	}
}

// hiccups are shorter than the patience with a store that does not answer.
var hiccups = map[string]func(*world){
	"frozen for 300 ms": func(w *world) {
		w.servers[0].freeze()
		time.Sleep(300 * time.Millisecond)
		w.servers[0].thaw()
	},
	"frozen for 1.9 s": func(w *world) {
		w.servers[0].freeze()
		time.Sleep(1900 * time.Millisecond)
		w.servers[0].thaw()
	},
	"restarted within 50 ms": func(w *world) {
		w.servers[0].kill()
		time.Sleep(50 * time.Millisecond)
		w.servers[0].start()
	},
	"answers lost": func(w *world) { w.servers[0].set(func() { w.servers[0].lose = 10 }) },
	"the gate stopped for 300 ms again and again": func(w *world) {
		for range 8 {
			w.gates[1].stop(300 * time.Millisecond)
			time.Sleep(600 * time.Millisecond)
		}
	},
	"the gate stopped for 5 s": func(w *world) {
		w.gates[1].stop(5 * time.Second)
		time.Sleep(5 * time.Second)
	},
}

// Whatever a hiccup looks like: no waiter gets the lock while another gate holds it, nothing is refused, and a request
// that comes in the middle of it waits for the end.
func TestAHiccupIsNoVerdict(t *testing.T) {
	t.Parallel()
	for name, hiccup := range hiccups {
		for _, local := range []bool{true, false} {
			for _, early := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, held locally %v, waiting before %v", name, local, early), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { hiccupIsNoVerdict(t, hiccup, local, early) })
				})
			}
		}
	}
}

func hiccupIsNoVerdict(t *testing.T, hiccup func(*world), local, early bool) {
	w := newWorld(t, 1, 2, nil)
	defer w.shut()
	held := w.hold(w.gates[0], 8)
	policy := sessionlock.Policy{MaxWait: time.Minute, HoldLocally: local}
	var a *waiters
	if early {
		a = w.wait(w.gates[1], held, policy)
		time.Sleep(time.Second)
		hiccup(w)
	} else {
		go hiccup(w)
		time.Sleep(20 * time.Millisecond)
		a = w.wait(w.gates[1], held, policy)
	}
	time.Sleep(6 * time.Second)
	if got, local, failed := a.count(); got+failed > 0 {
		t.Errorf("%d waiters got a lock that another holds, %d of them locally, and %d failed: %v", got, local, failed, a.errs)
	}
	for _, l := range held {
		if err := l.Err(); err != nil {
			t.Fatalf("a holder lost its lock: %v", err)
		}
	}
	releaseAll(held)
	a.all.Wait()
	if got, local, failed := a.count(); got != len(held) || local+failed > 0 {
		t.Errorf("%d of %d got the lock in the end, %d of them locally; %d failed: %v", got, len(held), local, failed, a.errs)
	}
	releaseAll(a.got)
	time.Sleep(time.Second)
}

// The store is really away: a request that knows of no holder waits for two seconds and not for max wait; one that does
// waits until that holder's lease must have ended. When the store is back, one of both has the lease, and the other is
// told of its loss.
func TestAStoreThatIsAwayIsAVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2, nil)
		defer w.shut()
		held := w.hold(w.gates[0], 20)
		lenient := sessionlock.Policy{MaxWait: time.Minute, HoldLocally: true}
		known := w.wait(w.gates[1], held[:10], lenient)
		time.Sleep(time.Second)
		gone := time.Now()
		w.servers[0].freeze()
		time.Sleep(100 * time.Millisecond)
		unknown := w.wait(w.gates[1], held[10:], lenient)
		strict := w.wait(w.gates[1], w.fresh(10), sessionlock.Policy{MaxWait: time.Minute})
		unknown.all.Wait()
		strict.all.Wait()
		if took := time.Since(gone); took < patience || took > patience+time.Second {
			t.Errorf("a store that is away was waited for for %v, want %v", took, patience)
		}
		if got, local, _ := unknown.count(); got != 10 || local != 10 {
			t.Errorf("got %d locks, %d of them held locally, want 10", got, local)
		}
		if _, _, failed := strict.count(); failed != 10 {
			t.Errorf("%d failed of 10 that do not hold locally", failed)
		}
		if got, _, failed := known.count(); got+failed > 0 {
			t.Errorf("%d that knew of a holder have the lock after %v", got, time.Since(gone))
		}
		known.all.Wait()
		for _, at := range known.since {
			if took := at.Sub(gone); took < memcachelock.DefaultLease-time.Second || took > memcachelock.DefaultLease+2*time.Second {
				t.Errorf("a holder's lease was waited for for %v, want about %v", took, memcachelock.DefaultLease)
			}
		}
		w.servers[0].thaw()
		time.Sleep(3 * time.Second)
		for i, l := range held {
			other := append(known.of(l.Key()), unknown.of(l.Key())...)
			if len(other) != 1 {
				t.Fatalf("session %d has %d other holders, want 1", i, len(other))
			}
			if a, b := l.Err(), other[0].Err(); (a == nil) == (b == nil) {
				t.Errorf("session %d: got errors %v and %v of its two holders, want one of them lost", i, a, b)
			}
			if l.Err() == nil && l.Local() || other[0].Err() == nil && other[0].Local() {
				t.Errorf("session %d is still held locally", i)
			}
		}
		releaseAll(held)
		releaseAll(known.got)
		releaseAll(unknown.got)
		time.Sleep(time.Second)
	})
}

// fresh are locks that no gate holds.
func (w *world) fresh(n int) (all []*sessionlock.Lock) {
	locks := sessionlock.NewManager(sessionlock.NewLocal())
	for range n {
		l, _ := locks.Acquire(context.Background(), newKey(w.T), nil, sessionlock.Policy{})
		all = append(all, l)
	}
	return all
}

func (a *waiters) of(key sessionlock.Key) (some []*sessionlock.Lock) {
	for _, l := range a.got {
		if l.Key() == key {
			some = append(some, l)
		}
	}
	return some
}

// However many locks one gate waits for, it looks at no more than max_poll_rate in a second, in far fewer round trips;
// the leases that it has itself are renewed all the while, and nothing is held locally.
func TestTheRateOfLooksIsKept(t *testing.T) {
	t.Parallel()
	for _, waits := range []int{1, 100, mostWaits} {
		t.Run(strconv.Itoa(waits), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 2, nil)
				defer w.shut()
				const rate = memcachelock.DefaultMaxPollRate
				var held []*sessionlock.Lock
				for range waits {
					key := newKey(t)
					l, err := w.gates[0].locks.Acquire(t.Context(), key, nil, sessionlock.Policy{MaxWait: time.Minute})
					if err != nil {
						t.Fatal(err)
					}
					held = append(held, l)
				}
				own := w.hold(w.gates[1], 50)
				a := w.wait(w.gates[1], held, sessionlock.Policy{MaxWait: 10 * time.Minute, HoldLocally: true})
				time.Sleep(3 * time.Second) // they have joined their lines
				for range 8 {
					before := w.gates[1].store.Stats().Servers[0]
					time.Sleep(time.Second)
					after := w.gates[1].store.Stats().Servers[0]
					looks, trips := after.Looks-before.Looks, after.RoundTrips-before.RoundTrips
					if looks > rate+rate/100 {
						t.Errorf("%d looks in a second, want %d at most, and one round trip", looks, rate)
					}
					if trips > 1000 {
						t.Errorf("%d round trips in a second, want 1,000 at most", trips)
					}
				}
				stats := w.gates[1].store.Stats()
				t.Logf("%d waits: %d looks, %d round trips in all", waits, stats.Servers[0].Looks, stats.Servers[0].RoundTrips)
				if got, local, failed := a.count(); got+local+failed > 0 {
					t.Errorf("%d got a lock that another holds, %d of them locally; %d failed", got, local, failed)
				}
				for _, l := range append(own, held...) {
					if err := l.Err(); err != nil {
						t.Fatalf("a lease was lost: %v", err)
					}
				}
				releaseAll(held)
				a.all.Wait()
				if got, local, failed := a.count(); got != waits || local+failed > 0 {
					t.Errorf("%d of %d got the lock in the end, %d of them locally; %d failed", got, waits, local, failed)
				}
				releaseAll(a.got)
				releaseAll(own)
				time.Sleep(5 * time.Second)
			})
		})
	}
}
