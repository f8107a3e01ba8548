// Package locktest holds a sessionlock.Store to what a lock promises: one holder, first in first out on one host
// and turns between hosts, no wait beyond max wait and no hold beyond expiry, leases of dead gates that end, release
// by the holder only, and losses that are said. Run does so through Managers that share one store, in real time, so
// that it fits stores in other processes. Fake is a store for tests of what stands on one.
package locktest

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Config describes the store under test.
type Config struct {
	// New returns the store of one more gate. Those of one test share their leases. Keys are made anew for each test,
	// so the server behind them can be the same for all.
	New func(t *testing.T) sessionlock.Store

	// Tolerance is how much later than promised something may come: the store's own slack (a TTL that is rounded up,
	// a grace after a restart) and what a noisy machine adds. Zero is a second.
	Tolerance time.Duration

	// Drop makes the server forget the lease of key, as an eviction does. Nil: it never forgets.
	Drop func(t *testing.T, key sessionlock.Key)
}

// Run tests the store that c describes. Where it has a TTL, that takes some TTLs.
func Run(t *testing.T, c Config) {
	if c.Tolerance == 0 {
		c.Tolerance = time.Second
	}
	ttl := c.New(t).TTL()
	for _, p := range promises {
		if p.needs == aTTL && ttl == 0 || p.needs == aDrop && c.Drop == nil {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			p.test(&suite{T: t, Config: c, key: newKey(t), ttl: ttl})
		})
	}
}

// need is what a store must have for a promise to mean something.
type need int

const (
	nothing need = iota
	aTTL
	aDrop
)

// promises are the tests, in the order of what a lock promises.
var promises = []struct {
	name  string
	needs need
	test  func(*suite)
}{
	{"one holder among many gates", nothing, oneHolder},
	{"a gate sees its own release at once", nothing, ownRelease},
	{"first in, first out in one gate", nothing, firstInFirstOut},
	{"gates take turns", nothing, turns},
	{"a turn that is no longer waited for goes to others", nothing, withdrawnTurn},
	{"no wait beyond max wait", nothing, maxWait},
	{"no hold beyond expiry", nothing, expiry},
	{"a live gate keeps its lease beyond the TTL", aTTL, renewal},
	{"a dead gate frees its locks within a TTL", aTTL, deadGate},
	{"a lease is released by its holder only", nothing, releaseByHolder},
	{"a cancelled question leaves no lease", nothing, canceledRequest},
	{"a gate that is cut off says that its lock is lost", aTTL, cutOff},
	{"a lease that was dropped is never trusted in silence", aDrop, dropped},
}

// suite is one test of a store.
type suite struct {
	*testing.T
	Config
	key sessionlock.Key
	ttl time.Duration
}

func newKey(t *testing.T) sessionlock.Key {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	return sessionlock.KeyFor(nil, t.Name(), id)
}

// gate makes one more gate on the store.
func (s *suite) gate() *sessionlock.Manager { return sessionlock.NewManager(s.New(s.T)) }

// patient is a policy whose max wait is over only if a promise was broken.
func (s *suite) patient() sessionlock.Policy {
	return sessionlock.Policy{MaxWait: 30*time.Second + 3*s.ttl + s.Tolerance}
}

// lock acquires what must be there to acquire within p.
func (s *suite) lock(m *sessionlock.Manager, p sessionlock.Policy) *sessionlock.Lock {
	s.Helper()
	l, err := m.Acquire(context.Background(), s.key, nil, p)
	if err != nil {
		s.Fatalf("acquire: %v", err)
	}
	return l
}

// held tries to acquire the lock from m for a moment, and fails the test if it succeeds.
func (s *suite) held(m *sessionlock.Manager) {
	s.Helper()
	l, err := m.Acquire(context.Background(), s.key, nil, sessionlock.Policy{MaxWait: 20 * time.Millisecond})
	if err == nil {
		l.Release()
		s.Fatal("the lock is free; want it held")
	} else if !errors.Is(err, sessionlock.ErrMaxWait) {
		s.Fatalf("got error %v; want ErrMaxWait", err)
	}
}

// lost waits for l to be lost, within d and the tolerance.
func (s *suite) lost(l *sessionlock.Lock, d time.Duration) {
	s.Helper()
	select {
	case <-l.Lost():
	case <-time.After(d + s.Tolerance):
		s.Fatalf("the holder was not told within %v", d+s.Tolerance)
	}
	if err := l.Err(); !errors.Is(err, sessionlock.ErrLost) {
		s.Errorf("got error %v of the lock; want ErrLost", err)
	}
}

// queued waits until n wait for the lock in m.
func (s *suite) queued(m *sessionlock.Manager, n int) {
	s.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, state := range m.Snapshot() {
			if state.Key == s.key && len(state.Waiters) == n {
				return
			}
		}
	}
	s.Fatalf("never saw %d waiters", n)
}

// mortal is a store whose gate can die: from then on nothing reaches the server, until it is revived.
type mortal struct {
	sessionlock.Store
	dead atomic.Bool
}

var errDead = errors.New("the gate is dead")

func (m *mortal) Acquire(ctx context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	lease, err := m.Store.Acquire(ctx, key, token)
	if err != nil {
		return nil, err
	}
	return &mortalLease{lease, m}, nil
}

func (m *mortal) Withdraw(key sessionlock.Key, token sessionlock.Token) {
	if !m.dead.Load() {
		m.Store.Withdraw(key, token)
	}
}

type mortalLease struct {
	sessionlock.Lease
	gate *mortal
}

func (l *mortalLease) Renew(ctx context.Context) error {
	if l.gate.dead.Load() {
		return errDead
	}
	return l.Lease.Renew(ctx)
}

func (l *mortalLease) ShouldYield() bool { return !l.gate.dead.Load() && l.Lease.ShouldYield() }

func (l *mortalLease) Release() {
	if !l.gate.dead.Load() {
		l.Lease.Release()
	}
}
