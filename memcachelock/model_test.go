package memcachelock_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// TestRandomInterleavingsKeepThePromises lets three gates and two sessions live through what a seed says, and holds
// what came of it to the promises after each step. With one server, that may be slow, lose answers, hang, stall, and
// be restarted; with a quorum one of three at a time. Other seeds flush and evict, too, and cut a gate off or stop it
// for a moment. A third of them have a network with round trips of 60 ms, and some requests hold locally where the
// store fails.
func TestRandomInterleavingsKeepThePromises(t *testing.T) {
	t.Parallel()
	const steps = 60
	seeds := *modelSeeds
	var mu sync.Mutex
	held, lost, failed, local := 0, 0, 0, 0
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed)
				defer m.shut()
				for range steps {
					m.step()
					m.check()
				}
				m.end()
				mu.Lock()
				defer mu.Unlock()
				held, lost, failed, local = held+m.held, lost+m.lost, failed+m.failed, local+m.local
			})
		})
	}
	t.Cleanup(func() {
		if held < 5*seeds || failed < seeds/2 || lost == 0 || local < seeds/2 {
			t.Errorf("%d locks were held, %d of them lost, %d of them locally, and %d requests failed, want a test that does more",
				held, lost, local, failed)
		}
	})
}

var modelSeeds = flag.Int("seeds", 24, "of the model test")

const (
	modelLease   = 6 * time.Second
	modelTTL     = modelLease - time.Second
	modelTimeout = 250 * time.Millisecond
	modelLatency = 4 * time.Millisecond
	farLatency   = 60 * time.Millisecond
	patience     = 2 * time.Second // with a server that does not answer
	heartbeat    = 100 * time.Millisecond
)

// model is what happened so far.
type model struct {
	*testing.T
	rng     *rand.Rand
	level   int // of faults: 0 none, 1 those that take no lock, 2 all
	latency time.Duration
	servers []*fakeServer
	gates   []*modelGate
	keys    []sessionlock.Key
	excuses []time.Time

	held, lost, failed, local int

	mu    sync.Mutex  // guards what follows, and the fields of the tries
	quiet time.Time   // since when all is well
	sick  *fakeServer // the one that something was done to
	since time.Time   // it is sick
	tries []*try      // in the order of their begin
}

type modelGate struct {
	number int
	store  *memcachelock.Store
	locks  *sessionlock.Manager

	mu      sync.Mutex
	stopped time.Time                       // until when
	told    map[sessionlock.Token]time.Time // that another has the lock
}

// listener is the store of a gate, and notes what each caller learns.
type listener struct {
	*memcachelock.Store
	gate *modelGate
}

func (s listener) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	lease, err := s.Store.Acquire(ctx, key, token)
	if errors.Is(err, sessionlock.ErrHeld) {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		s.gate.told[token] = time.Now()
	}
	return lease, err
}

// stop stops the gate for d, as a signal does: what it reads comes only then, and its timeouts pass meanwhile.
func (g *modelGate) stop(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = time.Now().Add(d)
}

// stoppable is a connection of a gate that can be stopped.
type stoppable struct {
	net.Conn
	gate *modelGate

	mu       sync.Mutex
	deadline time.Time
}

func (c *stoppable) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetDeadline(t)
}

func (c *stoppable) Read(b []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	c.sleep() // what has come, or a timeout, is noticed only then
	return n, err
}

func (c *stoppable) Write(b []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *stoppable) sleep() (slept bool) {
	c.gate.mu.Lock()
	left := time.Until(c.gate.stopped)
	c.gate.mu.Unlock()
	time.Sleep(left)
	return left > 0
}

func (c *stoppable) wait() error {
	if !c.sleep() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.deadline.IsZero() && time.Now().After(c.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// try is one Acquire and what came of it. The times are zero until then.
type try struct {
	gate     *modelGate
	key      sessionlock.Key
	policy   sessionlock.Policy
	begun    time.Time
	cancel   context.CancelFunc
	answered time.Time
	lock     *sessionlock.Lock
	err      error
	told     time.Time
	loss     error
	local    time.Time // since when it was held locally, whether it still is or not
	released time.Time
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		T:     t,
		rng:   rand.New(rand.NewPCG(seed, 2)),
		level: int(seed % 3),

		latency: modelLatency,
		keys:    []sessionlock.Key{{1, 1}, {2, 2}},
		quiet:   time.Now(),
	}
	if seed/6%3 == 2 {
		m.latency = farLatency
	}
	servers := 1
	if seed%2 == 1 {
		servers = 3
	}
	o := memcachelock.Options{Lease: modelLease, Timeout: modelTimeout, Quorum: servers > 1, MaxPollRate: 40}
	for i := range servers {
		m.servers = append(m.servers, newFakeServer(m.latency))
		o.Servers = append(o.Servers, netaddr.Addr{Network: "tcp", Address: strconv.Itoa(i)})
	}
	for i := range 3 {
		gate := &modelGate{number: i, told: make(map[sessionlock.Token]time.Time)}
		o.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
			n, _ := strconv.Atoi(address)
			nc, err := m.servers[n].dial(ctx, i)
			if err != nil {
				return nil, err
			}
			return &stoppable{Conn: nc, gate: gate}, nil
		}
		store, err := memcachelock.New(o)
		if err != nil {
			t.Fatal(err)
		}
		gate.store, gate.locks = store, sessionlock.NewManager(listener{store, gate})
		m.gates = append(m.gates, gate)
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
		time.Sleep(m.upTo(2 * m.latency))
	case 1:
		time.Sleep(m.upTo(time.Second))
	case 2:
		time.Sleep(m.upTo(modelLease))
	}
	synctest.Wait()
}

func (m *model) upTo(d time.Duration) time.Duration { return 1 + time.Duration(m.rng.Int64N(int64(d))) }

func (m *model) act() {
	gate, key := m.gates[m.rng.IntN(len(m.gates))], m.keys[m.rng.IntN(len(m.keys))]
	switch n := m.rng.IntN(100); {
	case n < 45:
		m.acquire(gate, key)
	case n < 60:
		m.pick((*try).got, (*model).release) // late ones and double ones, too
	case n < 75:
		m.pick((*try).holds, (*model).release)
	case n < 80:
		m.pick(func(a *try) bool { return a.answered.IsZero() }, func(_ *model, a *try) { a.cancel() })
	default:
		m.harm(gate, key)
	}
}

// harm does something to a server, or undoes it.
func (m *model) harm(gate *modelGate, key sessionlock.Key) {
	if m.level == 0 {
		return
	}
	if s := m.sick; s != nil {
		if m.rng.IntN(3) == 0 {
			m.heal(s)
		}
		return
	}
	// Whoever lost leases needs the grace to get them back, before another loses some.
	if time.Since(m.quiet) < 2*time.Second+modelTTL/3 {
		return
	}
	s := m.servers[m.rng.IntN(len(m.servers))]
	switch n := m.rng.IntN(13); {
	case n >= 12:
		gate.stop(m.upTo(time.Second))
	case n >= 10: // for a moment
		m.ail(s)
		s.freeze()
		time.Sleep(m.upTo(patience - 100*time.Millisecond))
		m.heal(s)
	case n < 3:
		s.set(func() { s.lose = 1 + m.rng.IntN(3) })
	case n < 5:
		m.ail(s)
		s.freeze()
	case n < 7:
		m.ail(s)
		s.kill()
		if m.rng.IntN(2) == 0 {
			m.heal(s)
		}
	case m.level < 2:
	case n < 8:
		s.set(func() { clear(s.items) })
	case n < 9:
		m.excuses = append(m.excuses, time.Now())
		s.set(func() { delete(s.items, lockName(key)) })
	default:
		m.ail(s)
		s.set(func() { s.cut[gate.number] = true })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quiet = time.Now()
}

// ail notes that something is done to s, until it is healed.
func (m *model) ail(s *fakeServer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sick, m.since = s, time.Now()
}

func (m *model) heal(s *fakeServer) {
	s.thaw()
	s.start()
	s.set(func() { clear(s.cut) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sick, m.quiet = nil, time.Now()
}

func (m *model) acquire(gate *modelGate, key sessionlock.Key) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &try{gate: gate, key: key, begun: time.Now(), cancel: cancel}
	a.policy = sessionlock.Policy{MaxWait: m.upTo(3 * modelTTL), Expiry: m.upTo(3 * modelTTL)}
	a.policy.HoldLocally = m.rng.IntN(2) == 0
	a.policy.OnLocal = func(sessionlock.Description) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if a.local.IsZero() {
			a.local = time.Now()
		}
	}
	a.policy.OnLoss = func(_ sessionlock.Description, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		a.told, a.loss = time.Now(), err
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
			m.checkLocal(a)
		}
	}()
	synctest.Wait() // so that the tries are in the order of the queues
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
	if a.end().IsZero() {
		a.released = time.Now()
	}
	m.mu.Unlock()
	a.lock.Release()
}

func (a *try) got() bool { return a.lock != nil }

// end is when the hold was over: at its release, or when its loss was reported.
func (a *try) end() time.Time {
	if a.told.IsZero() || !a.released.IsZero() && a.released.Before(a.told) {
		return a.released
	}
	return a.told
}

func (a *try) holds() bool { return a.got() && a.end().IsZero() }

// forget leaves out what was over long before.
func (m *model) forget(before time.Time) {
	var rest []*try
	for _, a := range m.tries {
		if a.answered.IsZero() || a.holds() || !locktest.Latest(a.answered, a.end()).Before(before) {
			rest = append(rest, a)
		} else {
			m.count(a)
		}
	}
	m.tries = rest
}

func (m *model) count(a *try) {
	if a.got() {
		m.held++
	}
	if errors.Is(a.loss, sessionlock.ErrLost) {
		m.lost++
	}
	if errors.Is(a.err, sessionlock.ErrStore) {
		m.failed++
	}
	if !a.local.IsZero() {
		m.local++
	}
}

// end lets all that waits or holds come to its end, and looks at what is left.
func (m *model) end() {
	for _, s := range m.servers {
		m.heal(s)
	}
	for _, a := range m.tries {
		a.cancel()
	}
	time.Sleep(2 * time.Second)
	synctest.Wait()
	m.pickAll((*try).holds, m.release)
	time.Sleep(5 * time.Second) // strays are swept, turns and lines end
	synctest.Wait()
	for i, s := range m.servers {
		if left := s.locks(); len(left) > 0 {
			m.Errorf("server %d still has %s", i, strings.Join(left, ", "))
		}
	}
	for _, gate := range m.gates {
		if stats := gate.store.Stats(); stats.Leases != 0 || stats.Waits != 0 {
			m.Errorf("gate %d still has %d leases and %d waits", gate.number, stats.Leases, stats.Waits)
		}
	}
	for _, a := range m.tries {
		m.count(a)
	}
}

// shut ends all that goes on, whether the test has failed or not.
func (m *model) shut() {
	for _, s := range m.servers {
		m.heal(s)
	}
	for _, a := range m.tries {
		a.cancel()
	}
	time.Sleep(time.Second)
	m.pickAll((*try).holds, m.release)
	for _, gate := range m.gates {
		if err := gate.store.Close(); err != nil {
			m.Errorf("close: %v", err)
		}
	}
	for _, s := range m.servers {
		s.kill()
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func (m *model) pickAll(fits func(*try) bool, do func(*try)) {
	for _, a := range m.tries {
		m.mu.Lock()
		fit := fits(a)
		m.mu.Unlock()
		if fit {
			do(a)
		}
	}
}

// path is a request that is known by its path.
type path string

func (p path) Describe() sessionlock.Description { return sessionlock.Description{Path: string(p)} }
