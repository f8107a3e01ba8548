package sharedlock_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

var modelSeeds = flag.Int("seeds", 24, "of the model test")

// TestAnyInterleavingKeepsThePromises lets three gates share two locks on one server or three. A seed decides in which
// order the requests to the servers are done, each by itself, and what becomes of them: in a third of the runs all are
// done; in another some are not sent, or cut before or after they are done, or never answered and done later or not; in
// the last servers lose all that they have, too.
func TestAnyInterleavingKeepsThePromises(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	held, failed, lost, local := 0, 0, 0, 0
	for seed := range uint64(*modelSeeds) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed)
				for range 400 {
					m.step()
					m.check()
				}
				m.end()
				mu.Lock()
				defer mu.Unlock()
				held, failed, lost, local = held+m.held, failed+m.failed, lost+m.lost, local+m.local
			})
		})
	}
	t.Cleanup(func() {
		t.Logf("%d locks were held, %d of them lost, %d locally; %d requests failed", held, lost, local, failed)
		if n := *modelSeeds; held < 10*n || failed == 0 || lost == 0 || local == 0 {
			t.Error("want a test that does more")
		}
	})
}

// What a run may meet.
const (
	noFaults = iota
	faults
	losses
	levels
)

type model struct {
	*testing.T
	rng     *rand.Rand
	level   uint64
	fates   *fates
	servers []*memory
	stores  []*sharedlock.Store
	gates   []*sessionlock.Manager
	keys    []sessionlock.Key

	held, failed, lost, local int

	mu    sync.Mutex // guards the fields of the tries
	tries []*try
}

// try is one Acquire and what came of it. The times are zero until then.
type try struct {
	gate     int
	key      sessionlock.Key
	cancel   context.CancelFunc
	answered time.Time
	lock     *sessionlock.Lock
	err      error
	end      time.Time // of the hold
	loss     error
	local    time.Time // since when it was held without the servers' consent, whether it still is or not
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		T: t, rng: rand.New(rand.NewPCG(seed, 7)), level: seed % levels, fates: &fates{prompt: true},
		keys: []sessionlock.Key{{1}, {2}},
	}
	for range 1 + 2*(seed/levels%2) {
		m.servers = append(m.servers, newMemory(m.fates))
	}
	for i := range 3 {
		s := newStore(i, m.servers...)
		m.stores, m.gates = append(m.stores, s), append(m.gates, sessionlock.NewManager(s))
	}
	time.Sleep(time.Second) // the epochs are known
	m.fates.bePrompt(false)
	return m
}

func (m *model) step() {
	synctest.Wait()
	switch n := m.rng.IntN(100); {
	case n < 50:
		m.fates.next(m.rng, m.fate())
	case n < 65:
		m.acquire()
	case n < 78:
		m.pick(func(a *try) bool { return a.lock != nil && a.end.IsZero() }, m.release)
	case n < 82:
		m.pick(func(a *try) bool { return a.answered.IsZero() }, func(a *try) { a.cancel() })
	case n < 98:
		m.pass(time.Millisecond)
	case n < 99 && m.level >= faults && m.rng.IntN(2) == 0:
		s := m.servers[m.rng.IntN(len(m.servers))]
		s.freeze(true)
		m.pass(2 * testLease)
		s.freeze(false)
	case n < 99 || m.level < losses:
		m.fates.bePrompt(true)
		m.pass(testLease)
		m.fates.bePrompt(false)
	default:
		m.lose()
	}
}

func (m *model) pass(most time.Duration) { time.Sleep(1 + time.Duration(m.rng.Int64N(int64(most)))) }

func (m *model) fate() fate {
	if m.level == noFaults || m.rng.IntN(6) > 0 {
		return done
	}
	return notSent + fate(m.rng.IntN(int(silentLate)))
}

// lose has a server lose all that it has. For a grace nothing is late then: the holders have to be able to add their
// leases again.
func (m *model) lose() {
	m.fates.bePrompt(true)
	synctest.Wait()
	time.Sleep(2 * time.Second) // what is late or in doubt from before is over, and all leases are there
	m.servers[m.rng.IntN(len(m.servers))].lose()
	for range 3 { // one of which may be the first to notice
		m.acquire()
		m.pass(60 * time.Millisecond)
	}
	time.Sleep(2 * testGrace)
	m.fates.bePrompt(false)
}

func (m *model) acquire() {
	ctx, cancel := context.WithCancel(context.Background())
	a := &try{gate: m.rng.IntN(len(m.gates)), key: m.keys[m.rng.IntN(len(m.keys))], cancel: cancel}
	p := sessionlock.Policy{MaxWait: time.Minute, Expiry: time.Hour, HoldLocally: m.rng.IntN(3) == 0}
	p.OnLocal = func(sessionlock.Description) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if a.local.IsZero() {
			a.local = time.Now()
		}
	}
	p.OnLoss = func(_ sessionlock.Description, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if a.loss = err; a.end.IsZero() {
			a.end = time.Now()
		}
	}
	m.mu.Lock()
	m.tries = append(m.tries, a)
	m.mu.Unlock()
	go func() {
		lock, err := m.gates[a.gate].Acquire(ctx, a.key, nil, p)
		m.mu.Lock()
		defer m.mu.Unlock()
		if a.answered, a.lock, a.err = time.Now(), lock, err; lock != nil && lock.Local() && a.local.IsZero() {
			a.local = lock.Since()
		}
	}()
	synctest.Wait()
}

func (m *model) release(a *try) {
	m.mu.Lock()
	if a.end.IsZero() {
		a.end = time.Now()
	}
	m.mu.Unlock()
	a.lock.Release()
}

// pick does something to one of the tries that fit, if there are any.
func (m *model) pick(fits func(*try) bool, do func(*try)) {
	if some := m.some(fits); len(some) > 0 {
		do(some[m.rng.IntN(len(some))])
	}
}

func (m *model) some(fits func(*try) bool) (some []*try) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.tries {
		if fits(a) {
			some = append(some, a)
		}
	}
	return some
}

// check: no two holds of a lock have any time in common, and without faults nothing fails and no lease is lost.
func (m *model) check() {
	m.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i, a := range m.tries {
		if m.level == noFaults && (errors.Is(a.err, sessionlock.ErrStore) || a.loss != nil || !a.local.IsZero()) {
			m.Errorf("gate %d: error %v, loss %v, held locally from %v without a fault", a.gate, a.err, a.loss, a.local)
		}
		for _, b := range m.tries[i+1:] {
			if a.key != b.key || a.lock == nil || b.lock == nil {
				continue
			}
			from := locktest.Latest(a.lock.Since(), b.lock.Since())
			ends := []time.Time{cmp.Or(a.end, now), cmp.Or(b.end, now)}
			if a.gate != b.gate { // once one of them is held locally, another gate may hold, too: see end
				ends = append(ends, cmp.Or(a.local, now), cmp.Or(b.local, now))
			}
			to := locktest.Earliest(ends...)
			if from.Before(to) {
				m.Errorf("gates %d and %d hold the lock for %v", a.gate, b.gate, to.Sub(from))
			}
		}
	}
	if m.Failed() {
		m.FailNow()
	}
	m.forget()
}

// forget leaves out what is over.
func (m *model) forget() {
	var rest []*try
	for _, a := range m.tries {
		switch {
		case a.answered.IsZero() || a.lock != nil && a.end.IsZero():
			rest = append(rest, a)
			continue
		case a.lock != nil:
			if m.held++; !a.local.IsZero() {
				m.local++
			}
		case errors.Is(a.err, sessionlock.ErrStore):
			m.failed++
		}
		if a.loss != nil {
			m.lost++
		}
	}
	m.tries = rest
}

// checkReunion: of gates that hold a lock next to each other because the servers failed, one has it when they are back,
// and the others are notified of their loss.
func (m *model) checkReunion() {
	holders := make(map[sessionlock.Key]int)
	for _, a := range m.some(func(a *try) bool { return a.lock != nil && a.end.IsZero() }) {
		if holders[a.key]++; a.lock.Local() {
			m.Errorf("gate %d still holds locally when all servers answer", a.gate)
		}
	}
	for key, n := range holders {
		if n > 1 {
			m.Errorf("%d gates hold lock %v when all servers answer", n, key)
		}
	}
}

// end: when all requests are answered, all that wait get their lock one after the other, and nothing is left.
func (m *model) end() {
	m.fates.bePrompt(true)
	time.Sleep(testLease + 2*time.Second) // strays and ownerless leases end
	m.checkReunion()
	for range 10 * (1 + len(m.tries)) {
		m.pick(func(a *try) bool { return a.lock != nil && a.end.IsZero() }, m.release)
		time.Sleep(100 * time.Millisecond)
		m.check()
	}
	if left := m.some(func(a *try) bool { return a.answered.IsZero() }); len(left) > 0 {
		m.Errorf("%d still wait for locks that are free", len(left))
	}
	for _, a := range m.tries {
		a.cancel()
	}
	time.Sleep(5 * time.Second)
	for i, s := range m.servers {
		if names := s.names(); len(names) > 0 {
			m.Errorf("server %d still has %s", i, strings.Join(names, ", "))
		}
	}
	for i, s := range m.stores {
		if stats := s.Stats(); stats.Leases != 0 || stats.Waits != 0 {
			m.Errorf("gate %d still has %d leases and %d waits", i, stats.Leases, stats.Waits)
		}
		closeStore(m.T, s)
	}
	synctest.Wait()
}
