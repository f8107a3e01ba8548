package sessionlock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Manager queues the requests of a process. Create it with NewManager. Its methods can be called concurrently.
type Manager struct {
	store   Store
	shards  [64]shard
	prefix  [8]byte // of this manager's tokens
	serial  atomic.Uint64
	renewer renewer

	assumeWaiters atomic.Bool // in another process, for each lock
}

// shard holds the sessions with similar keys. Sessions of different shards never wait for the same mutex.
type shard struct {
	mu       sync.Mutex
	sessions map[Key]*session
	spare    *session // for reuse: most requests find no session and leave none
}

// NewManager returns a manager that gets its leases from store.
func NewManager(store Store) *Manager {
	m := &Manager{store: store}
	for i := range m.shards {
		m.shards[i].sessions = make(map[Key]*session)
	}
	_, _ = rand.Read(m.prefix[:]) // never fails
	m.renewer.ttl = store.TTL()
	return m
}

// Acquire acquires the lock of key for by. It waits at most p.MaxWait, and until ctx is done. Requests get the lock in
// the order in which they came. With Mode Read it returns a Lock that holds nothing.
//
// The error is a *WaitError that wraps ErrMaxWait, ErrTooManyWaiters, ErrStore or the cause of ctx. If the lock is
// free, Acquire calls ctx.Err but not ctx.Done, which may be costly.
func (m *Manager) Acquire(ctx context.Context, key Key, by Holder, p Policy) (*Lock, error) {
	l := &Lock{key: key, by: by, policy: p, token: m.newToken(), entered: time.Now()}
	if ctx.Err() != nil {
		return nil, l.failed(context.Cause(ctx))
	}
	if err := m.enter(l); err != nil {
		return nil, l.failed(err)
	}
	if err := m.wait(ctx, l); err != nil {
		l.session.leave(l)
		return nil, l.failed(err)
	}
	return l, nil
}

// enter puts l into the queue of its session. The first request of a session has the turn at once.
func (m *Manager) enter(l *Lock) error {
	sh := m.shardOf(l.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[l.key]
	if s == nil {
		m.open(sh, l.key).push(l)
		return nil
	}
	l.blockedBy = describe(s.holder)
	switch {
	case l.policy.MaxWait <= 0:
		return ErrMaxWait
	case l.policy.MaxWaiters > 0 && s.waiting() >= l.policy.MaxWaiters:
		return ErrTooManyWaiters
	}
	l.turn = make(chan struct{})
	s.push(l)
	if s.holder != nil {
		s.holder.notifyWaiter()
	}
	return nil
}

// open adds the session of key. The caller must hold the shard's mutex.
func (m *Manager) open(sh *shard, key Key) *session {
	s := sh.spare
	if s == nil {
		s = &session{manager: m, shard: sh}
	}
	sh.spare = nil
	s.key = key
	sh.sessions[key] = s
	return s
}

// wait waits for the turn of l, then tries the store until l has the lease.
func (m *Manager) wait(ctx context.Context, l *Lock) error {
	var err error
	if l.turn == nil { // no request of this process is ahead
		if err = m.acquire(ctx, l); !retries(err) {
			return err
		}
		if l.policy.MaxWait <= 0 {
			return m.giveUp(l, err)
		}
	}
	defer func() { l.waited = time.Since(l.entered) }()
	maxWait := time.NewTimer(l.policy.MaxWait - time.Since(l.entered))
	defer maxWait.Stop()
	if l.turn != nil {
		if err = waitFor(ctx, l.turn, maxWait.C); err != nil {
			return err
		}
		err = m.acquire(ctx, l)
	}
	for pause := minPoll; retries(err); pause = min(2*pause, maxPoll) {
		tried := time.Now()
		switch end := waitToRetry(ctx, err, pause, maxWait.C); {
		case errors.Is(end, ErrMaxWait):
			if !errors.Is(err, ErrHeld) && tried.Sub(l.entered) < l.policy.MaxWait {
				err = m.acquire(ctx, l) // the store may know better by now
			}
			if !retries(err) {
				return err
			}
			return m.giveUp(l, err)
		case end != nil:
			return end
		}
		err = m.acquire(ctx, l)
	}
	return err
}

// retries reports whether to try the store again after err.
func retries(err error) bool {
	_, retry := errors.AsType[*RetryError](err)
	return retry || errors.Is(err, ErrHeld)
}

// giveUp ends the wait of l, which has the turn, with the store's last answer, which was not final. An answer other
// than ErrHeld means that the store has been failing, so that it is unknown whether another manager holds the lock.
func (m *Manager) giveUp(l *Lock, err error) error {
	if errors.Is(err, ErrHeld) {
		return ErrMaxWait
	}
	s := l.session
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	return m.fail(l, err)
}

// fail handles the failure err of the store for l, which has the turn. If the policy allows it, l becomes the holder
// without the store. Else fail returns err. The caller must hold the shard's mutex.
func (m *Manager) fail(l *Lock, err error) error {
	switch s := l.session; {
	case l.policy.HoldLocally:
		s.setLease(m.store.Adopt(l.key, l.token), l.token)
		s.local, s.renewal = true, m.renewer.addLocal(s, s.lease)
		s.grant(l)
		return nil
	case errors.Is(err, ErrStore):
		return err
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

// After an ErrHeld without a RetryError, the pauses between attempts double from minPoll to maxPoll.
const (
	minPoll = time.Millisecond
	maxPoll = 50 * time.Millisecond
)

// waitToRetry waits until the next attempt on a store that returned err: for the store's signal, for the pause that the
// store has requested, or for pause. It shortens pauses at random, by up to half, so that managers do not retry at the
// same moment.
func waitToRetry(ctx context.Context, err error, pause time.Duration, maxWait <-chan time.Time) error {
	if retry, ok := errors.AsType[*RetryError](err); ok {
		if retry.Ready != nil {
			return waitFor(ctx, retry.Ready, maxWait)
		}
		pause = max(retry.Again, minPoll)
	}
	poll := time.NewTimer(pause/2 + mathrand.N(pause/2))
	defer poll.Stop()
	return waitFor(ctx, poll.C, maxWait)
}

// waitFor waits for c, as long as ctx and the max wait allow. A request that has gone is not served, even if c is ready
// at the same moment.
func waitFor[T any](ctx context.Context, c <-chan T, maxWait <-chan time.Time) error {
	select {
	case <-c:
		if ctx.Err() == nil {
			return nil
		}
		return context.Cause(ctx)
	case <-maxWait:
		return ErrMaxWait
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// acquire makes l, which has the turn, the holder: with the lease that was handed on, or with a new one from the store.
func (m *Manager) acquire(ctx context.Context, l *Lock) error {
	s := l.session
	if s.takeOver(l) {
		return nil
	}
	start := m.renewer.now()
	lease, err := m.store.Acquire(ctx, l.key, l.token)
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if err == nil && m.renewer.isOver(start) {
		lease.Release() // another manager may have it by now
		err = ErrHeld
	}
	switch {
	case err == nil:
		s.setLease(lease, l.token)
		s.local, s.renewal = false, m.renewer.add(s, lease, start)
		s.grant(l)
		return nil
	case retries(err):
		s.refused = l.token
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return m.fail(l, err)
}

func (m *Manager) shardOf(key Key) *shard { return &m.shards[key[0]%uint8(len(m.shards))] }

func (m *Manager) newToken() Token {
	var t Token
	copy(t[:], m.prefix[:])
	binary.BigEndian.PutUint64(t[8:], m.serial.Add(1))
	return t
}
