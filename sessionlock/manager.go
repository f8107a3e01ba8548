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

// Manager is where the requests of a process meet. It is made by NewManager, and used by many goroutines.
type Manager struct {
	store   Store
	shards  [64]shard
	prefix  [8]byte // of this manager's tokens
	serial  atomic.Uint64
	renewer renewer
}

// shard is the part of the sessions whose key begins alike. Sessions of different shards never wait for each
// other's mutex.
type shard struct {
	mu       sync.Mutex
	sessions map[Key]*session
	spare    *session // to use again: most requests begin a session and end it
}

// NewManager makes a manager on store.
func NewManager(store Store) *Manager {
	m := &Manager{store: store}
	for i := range m.shards {
		m.shards[i].sessions = make(map[Key]*session)
	}
	_, _ = rand.Read(m.prefix[:]) // never fails
	m.renewer.ttl = store.TTL()
	return m
}

// Acquire waits for the lock of key, at most p.MaxWait or until ctx is done, and holds it for by. With
// Mode Read it returns a Lock that holds nothing. The order is first in, first out.
//
// The error is a *WaitError, of which errors.Is finds ErrMaxWait, ErrTooManyWaiters, ErrStore or the cause of ctx.
// Where nobody has to wait, ctx is asked for its Err only and not for its Done.
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

// enter gives l a place in the queue of its session. The first there has the turn at once.
func (m *Manager) enter(l *Lock) error {
	sh := m.shardOf(l.key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[l.key]
	if s == nil {
		m.open(sh, l.key).push(l)
		return nil
	}
	l.behind = describe(s.holder)
	switch {
	case l.policy.MaxWait <= 0:
		return ErrMaxWait
	case l.policy.MaxWaiters > 0 && s.waiting() >= l.policy.MaxWaiters:
		return ErrTooManyWaiters
	}
	l.turn = make(chan struct{})
	s.push(l)
	if s.holder != nil {
		s.holder.tellWaiter()
	}
	return nil
}

// open makes the session of key. It is called with the shard's mutex held.
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

// wait waits for the turn of l, and from then on asks the store until it has the lease.
func (m *Manager) wait(ctx context.Context, l *Lock) error {
	var err error
	if l.turn == nil { // nobody is ahead in this process
		if err = m.ask(ctx, l); !retries(err) {
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
		err = m.ask(ctx, l)
	}
	for pause := minPoll; retries(err); pause = min(2*pause, maxPoll) {
		asked := time.Now()
		switch end := waitToAsk(ctx, err, pause, maxWait.C); {
		case errors.Is(end, ErrMaxWait):
			if !errors.Is(err, ErrHeld) && asked.Sub(l.entered) < l.policy.MaxWait {
				err = m.ask(ctx, l) // the store may know better by now
			}
			if !retries(err) {
				return err
			}
			return m.giveUp(l, err)
		case end != nil:
			return end
		}
		err = m.ask(ctx, l)
	}
	return err
}

// retries reports whether a store that answered err is to be asked again.
func retries(err error) bool {
	_, retry := errors.AsType[*RetryError](err)
	return retry || errors.Is(err, ErrHeld)
}

// giveUp ends the wait of l, whose turn it is, with the store's last answer, which was not final. If that was no
// ErrHeld, max wait is over in the middle of a failure: nothing is known of another holder.
func (m *Manager) giveUp(l *Lock, err error) error {
	if errors.Is(err, ErrHeld) {
		return ErrMaxWait
	}
	s := l.session
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	return m.fail(l, err)
}

// fail makes l, whose turn it is, the holder without the store's consent if its policy says so, else it returns err,
// which is the store's. It is called with the shard's mutex held.
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

// The pauses between attempts on a store that says ErrHeld, and nothing more, double from minPoll to maxPoll.
const (
	minPoll = time.Millisecond
	maxPoll = 50 * time.Millisecond
)

// waitToAsk waits until the store that answered err should be asked again: when it says so, after the pause that it
// has named, or else after pause. A pause is shortened by up to half, as not all managers should come at once.
func waitToAsk(ctx context.Context, err error, pause time.Duration, maxWait <-chan time.Time) error {
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

// waitFor waits for c, as long as ctx and the max wait allow. Who has gone is not served, even if his turn came
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

// ask makes l, whose turn it is, the holder: with the lease that was handed on, or with one that the store is
// asked for.
func (m *Manager) ask(ctx context.Context, l *Lock) error {
	s := l.session
	if s.takeOver(l) {
		return nil
	}
	start := m.renewer.now()
	lease, err := m.store.Acquire(ctx, l.key, l.token)
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
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
