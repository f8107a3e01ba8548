package sessionlock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// TestRandomInterleavingsKeepThePromises lets three gates and two sessions live through what a seed says, and holds
// what came of it to the promises after each step. The pauses between calls are random apart from the seed, so
// that the same seed may take another way next time.
func TestRandomInterleavingsKeepThePromises(t *testing.T) {
	const seeds, steps = 100, 150
	held, lost, local := 0, 0, 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed)
				for range steps {
					m.step()
					m.check()
				}
				m.end()
				held, lost, local = held+m.held, lost+m.lost, local+m.local
			})
		})
	}
	if held < 20*seeds || lost < seeds || local < seeds {
		t.Errorf("%d locks were held, %d of them lost, and %d without a lease, want a test that does more", held, lost, local)
	}
}

// Bounds of the model. Nothing takes longer than latency, which is the time of one question.
const (
	latency  = 20 * time.Millisecond
	longPoll = 50 * time.Millisecond
	turnKept = 200 * time.Millisecond // by the fake, for a gate that waits
)

// model is what happened so far.
type model struct {
	*testing.T
	rng    *rand.Rand
	faults bool // of the store: it is cut off, or loses leases
	server *locktest.Fake
	gates  []*modelGate
	keys   []sessionlock.Key
	drops  map[sessionlock.Key][]time.Time
	held   int
	lost   int
	local  int

	mu    sync.Mutex // guards the fields of the tries
	tries []*try     // in the order of their begin
}

type modelGate struct {
	*locktest.Gate
	locks  *sessionlock.Manager
	cut    bool
	mended time.Time // since when it is not cut off
}

// try is one Acquire and what came of it. The times are zero until then.
type try struct {
	gate   *modelGate
	key    sessionlock.Key
	policy sessionlock.Policy
	begun  time.Time
	cancel context.CancelFunc

	answered time.Time // Acquire returned
	lock     *sessionlock.Lock
	err      error
	told     time.Time // OnLoss was called
	loss     error
	local    time.Time // since when it is held without a lease
	released time.Time
	checked  bool // when it was over
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		T:      t,
		rng:    rand.New(rand.NewPCG(seed, 1)),
		faults: seed%2 == 1,
		server: locktest.NewFake(ttl),
		keys:   []sessionlock.Key{{1, 1}, {65, 65}}, // of one shard
		drops:  make(map[sessionlock.Key][]time.Time),
	}
	for range 3 {
		gate := m.server.Gate()
		m.gates = append(m.gates, &modelGate{Gate: gate, locks: sessionlock.NewManager(gate), mended: time.Now()})
	}
	return m
}

// step does one to three things in one instant, and lets some time pass or none.
func (m *model) step() {
	for range 1 + m.rng.IntN(3) {
		m.act()
	}
	synctest.Wait()
	switch m.rng.IntN(4) {
	case 0:
		time.Sleep(time.Duration(m.rng.Int64N(int64(latency))))
	case 1:
		time.Sleep(time.Duration(m.rng.Int64N(int64(time.Second))))
	case 2:
		time.Sleep(time.Duration(m.rng.Int64N(int64(ttl))))
	}
	synctest.Wait()
}

func (m *model) act() {
	gate, key := m.gates[m.rng.IntN(len(m.gates))], m.keys[m.rng.IntN(len(m.keys))]
	switch n := m.rng.IntN(100); {
	case n < 45:
		m.acquire(gate, key)
	case n < 60:
		m.pick(func(a *try) bool { return true }, (*model).release) // late ones and double ones, too
	case n < 75:
		m.pick(func(a *try) bool { return a.holds() }, (*model).release)
	case n < 85:
		m.pick(func(a *try) bool { return a.answered.IsZero() }, func(_ *model, a *try) { a.cancel() })
	case n < 88:
		gate.locks.Break(key)
	case n < 92:
		gate.Slow(time.Duration(m.rng.Int64N(int64(latency))))
	case !m.faults:
	case n < 96:
		m.drops[key] = append(m.drops[key], time.Now())
		m.server.Drop(key)
	case gate.cut:
		gate.cut, gate.mended = false, time.Now()
		gate.Fail(nil)
	default:
		gate.cut = true
		gate.Fail(errDown)
	}
}

func (m *model) acquire(gate *modelGate, key sessionlock.Key) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &try{gate: gate, key: key, begun: time.Now(), cancel: cancel}
	a.policy.OnLoss = func(_ sessionlock.Description, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !a.told.IsZero() {
			m.Errorf("told %v, and before that %v", err, a.loss)
		}
		a.told, a.loss = time.Now(), err
	}
	a.policy.HoldLocally = m.rng.IntN(3) == 0
	a.policy.OnLocal = func(sessionlock.Description) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !a.local.IsZero() {
			m.Error("told twice that the lock goes on locally")
		}
		a.local = time.Now()
	}
	a.policy.MaxWait = m.upTo(4, 3*ttl)
	a.policy.Expiry = m.upTo(2, 2*ttl)
	if m.rng.IntN(5) == 0 {
		a.policy.Mode = sessionlock.Read
	}
	if m.rng.IntN(3) == 0 {
		a.policy.MaxWaiters = 1 + m.rng.IntN(3)
	}
	m.mu.Lock()
	m.tries = append(m.tries, a)
	m.mu.Unlock()
	go func() {
		lock, err := gate.locks.Acquire(ctx, key, path("/"), a.policy)
		m.mu.Lock()
		defer m.mu.Unlock()
		a.answered, a.lock, a.err = time.Now(), lock, err
		if lock != nil && lock.Local() && a.local.IsZero() {
			a.local = lock.Since()
		}
	}()
	synctest.Wait() // so that the tries are in the order of the queues
}

// upTo is a random time, and zero once in n.
func (m *model) upTo(n int, d time.Duration) time.Duration {
	if m.rng.IntN(n) == 0 {
		return 0
	}
	return 1 + time.Duration(m.rng.Int64N(int64(d)))
}

// pick does something to one of the tries that fit.
func (m *model) pick(fits func(*try) bool, do func(*model, *try)) {
	m.mu.Lock()
	var some []*try
	for _, a := range m.tries {
		if fits(a) {
			some = append(some, a)
		}
	}
	m.mu.Unlock()
	if len(some) > 0 {
		do(m, some[m.rng.IntN(len(some))])
	}
}

func (m *model) release(a *try) {
	m.mu.Lock()
	lock := a.lock
	if lock != nil && a.released.IsZero() {
		a.released = time.Now()
	}
	m.mu.Unlock()
	if lock != nil {
		lock.Release()
	}
}

// got reports whether a became a hold; it may be over.
func (a *try) got() bool { return a.lock != nil && a.policy.Mode == sessionlock.Exclusive }

// end is when the hold a was over: at its release, or when its loss was reported.
func (a *try) end() time.Time {
	if a.told.IsZero() || !a.released.IsZero() && a.released.Before(a.told) {
		return a.released
	}
	return a.told
}

func (a *try) holds() bool { return a.got() && a.end().IsZero() }

func (a *try) over() bool { return !a.answered.IsZero() && !a.holds() }

// end lets all that waits or holds come to its end, and looks at what is left.
func (m *model) end() {
	for _, gate := range m.gates {
		gate.Fail(nil)
	}
	for _, a := range m.tries {
		a.cancel()
	}
	time.Sleep(latency)
	synctest.Wait()
	for _, a := range m.tries {
		m.release(a)
	}
	time.Sleep(2 * ttl)
	synctest.Wait()
	for _, gate := range m.gates {
		wantEmpty(m.T, gate.locks)
	}
	for _, a := range m.tries {
		m.count(a)
	}
}

func (m *model) count(a *try) {
	if a.got() {
		m.held++
	}
	if errors.Is(a.loss, sessionlock.ErrLost) {
		m.lost++
	}
	if a.got() && a.lock.Local() {
		m.local++
	}
}
