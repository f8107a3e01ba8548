package sessionlock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// attempt is an Acquire that runs concurrently with the test, in a synctest bubble.
type attempt struct {
	result atomic.Pointer[result] // nil while it waits
	cancel context.CancelCauseFunc
}

type result struct {
	lock *sessionlock.Lock
	err  error
	took time.Duration
}

var (
	key     = sessionlock.KeyFor(nil, "www", []byte("0123456789abcdef"))
	patient = sessionlock.Policy{MaxWait: time.Hour}
	reader  = sessionlock.Policy{MaxWait: time.Hour, Mode: sessionlock.Read}
)

// path is a request that is known by its path.
type path string

func (p path) Describe() sessionlock.Description { return sessionlock.Description{Path: string(p)} }

// begin begins to acquire key, and returns when that can get no further without time.
func begin(t *testing.T, m *sessionlock.Manager, p sessionlock.Policy) *attempt {
	a := start(t, m, key, p)
	synctest.Wait()
	return a
}

func start(t *testing.T, m *sessionlock.Manager, key sessionlock.Key, p sessionlock.Policy) *attempt {
	ctx, cancel := context.WithCancelCause(t.Context())
	a := startWith(ctx, m, key, p)
	a.cancel = cancel
	return a
}

func startWith(ctx context.Context, m *sessionlock.Manager, key sessionlock.Key, p sessionlock.Policy) *attempt {
	a := &attempt{}
	go func() {
		begun := time.Now()
		lock, err := m.Acquire(ctx, key, path("/"), p)
		a.result.Store(&result{lock, err, time.Since(begun)})
	}()
	return a
}

// lock is what the attempt has got so far; nil: nothing.
func (a *attempt) lock() *sessionlock.Lock {
	if r := a.result.Load(); r != nil {
		return r.lock
	}
	return nil
}

// release releases the lock of a, and lets the others go as far as they can without time.
func (a *attempt) release() {
	a.lock().Release()
	synctest.Wait()
}

// wantHeld fails unless a has the lock.
func (a *attempt) wantHeld(t *testing.T) {
	t.Helper()
	switch r := a.result.Load(); {
	case r == nil:
		t.Fatal("still waits, want the lock")
	case r.err != nil:
		t.Fatalf("got error %v, want the lock", r.err)
	case r.lock.Err() != nil:
		t.Fatalf("the lock has ended: %v", r.lock.Err())
	}
}

func (a *attempt) wantWaits(t *testing.T) {
	t.Helper()
	if r := a.result.Load(); r != nil {
		t.Fatalf("got lock %p, error %v, want it to wait", r.lock, r.err)
	}
}

// wantError fails unless a ended with a WaitError that is want.
func (a *attempt) wantError(t *testing.T, want error) *sessionlock.WaitError {
	t.Helper()
	r := a.result.Load()
	if r == nil {
		t.Fatalf("still waits, want error %v", want)
	}
	var wait *sessionlock.WaitError
	if !errors.Is(r.err, want) || !errors.As(r.err, &wait) {
		t.Fatalf("got error %v, want a WaitError that is %v", r.err, want)
	}
	return wait
}

// wantEmpty fails if m keeps anything in memory after the last holder and waiter.
func wantEmpty(t *testing.T, m *sessionlock.Manager) {
	t.Helper()
	synctest.Wait()
	if n := m.Sessions(); n != 0 {
		t.Errorf("%d sessions are left in memory, want none", n)
	}
	if n := m.Renewals(); n != 0 {
		t.Errorf("%d leases are still renewed, want none", n)
	}
}

// remote makes a manager on a server whose leases live for ttl.
func remote(ttl time.Duration) (*locktest.Fake, *locktest.Gate, *sessionlock.Manager) {
	server := locktest.NewFake(ttl)
	gate := server.Gate()
	return server, gate, sessionlock.NewManager(gate)
}

// local makes a manager without competitors.
func local() *sessionlock.Manager { return sessionlock.NewManager(sessionlock.NewLocal()) }
