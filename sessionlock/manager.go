package sessionlock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Manager is where the requests of a process meet. It is made by NewManager, and used by many goroutines.
type Manager struct {
	store  Store
	shards [64]shard
	prefix [8]byte // of this manager's tokens
	serial atomic.Uint64
	renew  renewer
}

// shard is the part of the sessions whose key begins alike. Sessions of different shards never wait for each
// other's mutex.
type shard struct {
	mu       sync.Mutex
	sessions map[Key]*session
}

// session is what is known of a session that somebody holds or waits for: its queue.
type session struct {
	key    Key
	shard  *shard
	holder *Lock // nil while the turn is the queue's head's
	lease  Lease // nil while the store has to be asked for it
	first  *waiter
	last   *waiter
	length int
	asking bool // somebody has the turn, and talks to the store
}

// Token tells one hold from all others, in this process and elsewhere.
type Token [16]byte

// String is the token in hexadecimal digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// NewManager makes a manager on store.
func NewManager(store Store) *Manager {
	m := &Manager{store: store}
	for i := range m.shards {
		m.shards[i].sessions = make(map[Key]*session)
	}
	_, _ = rand.Read(m.prefix[:]) // never fails
	m.renew.every = store.TTL() / 3
	return m
}

// Acquire waits for the lock of key, at most p.MaxWait or until ctx is done, and holds it for by. With
// Mode Read it returns a Lock that holds nothing. The order is first in, first out.
//
// The error is a *WaitError, of which errors.Is finds ErrMaxWait, ErrTooManyWaiters, ErrStore or the cause of ctx.
func (m *Manager) Acquire(ctx context.Context, key Key, by Holder, p Policy) (*Lock, error) {
	l := &Lock{manager: m, key: key, by: by, policy: p}
	w, behind, err := m.enter(l)
	if err != nil {
		return nil, &WaitError{Err: err, Behind: behind}
	}
	if w == nil { // the turn is ours at once
		err := m.ask(ctx, l, nil)
		if err == nil {
			return l, nil
		}
		if errors.Is(err, ErrHeld) && p.MaxWait <= 0 {
			err = ErrMaxWait
		}
		if !errors.Is(err, ErrHeld) {
			m.leave(l.session, nil)
			return nil, &WaitError{Err: err}
		}
		w = m.requeue(l)
	}
	since := time.Now()
	err = m.wait(ctx, l, w)
	waited := time.Since(since)
	if err != nil {
		return nil, &WaitError{Err: err, Waited: waited, Behind: behind}
	}
	l.waited, l.behind = waited, behind
	return l, nil
}

// enter finds the session of l, and takes the turn if nobody else wants it. If somebody does, it returns l's
// place in the queue, and who is ahead.
func (m *Manager) enter(l *Lock) (w *waiter, behind Description, err error) {
	sh := &m.shards[l.key[0]%uint8(len(m.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[l.key]
	if s == nil {
		s = &session{key: l.key, shard: sh}
		sh.sessions[l.key] = s
	}
	l.session = s
	if s.free() {
		s.asking = true
		return nil, behind, nil
	}
	if s.holder != nil {
		behind = s.holder.by.Describe()
	}
	if l.policy.MaxWait <= 0 {
		return nil, behind, ErrMaxWait
	}
	if l.policy.MaxWaiters > 0 && s.length >= l.policy.MaxWaiters {
		return nil, behind, ErrTooManyWaiters
	}
	w = &waiter{turn: make(chan struct{}, 1), by: l.by, since: time.Now()}
	s.push(w)
	return w, behind, nil
}

// requeue puts l, whose turn it is, at the head of the queue: the store said that another manager has the lease.
func (m *Manager) requeue(l *Lock) *waiter {
	s := l.session
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	w := &waiter{turn: make(chan struct{}, 1), by: l.by, since: time.Now()}
	s.pushFront(w)
	w.turn <- struct{}{}
	return w
}

// wait waits for the turn of w, and from then on asks the store until it has the lease. On an error l has left
// the queue.
func (m *Manager) wait(ctx context.Context, l *Lock, w *waiter) error {
	timeout := time.NewTimer(l.policy.MaxWait)
	defer timeout.Stop()
	err := m.waitTurn(ctx, w, timeout.C)
	for pause := time.Millisecond; err == nil; pause = min(2*pause, maxPoll) {
		if err = m.ask(ctx, l, w); !errors.Is(err, ErrHeld) {
			break
		}
		err = m.pause(ctx, pause, timeout.C)
	}
	if err != nil {
		m.leave(l.session, w)
	}
	return err
}

// maxPoll is the longest pause between two questions to a store that says ErrHeld.
const maxPoll = 50 * time.Millisecond

func (m *Manager) waitTurn(ctx context.Context, w *waiter, timeout <-chan time.Time) error {
	select {
	case <-w.turn: // without a look at ctx, which costs something to watch
		return nil
	default:
	}
	select {
	case <-w.turn:
		return nil
	case <-timeout:
		return ErrMaxWait
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pause waits before the store is asked again, about d: not all managers should come at once.
func (m *Manager) pause(ctx context.Context, d time.Duration, timeout <-chan time.Time) error {
	t := time.NewTimer(d/2 + mathrand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-timeout:
		return ErrMaxWait
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask makes l, whose turn it is, the holder: with the lease that was handed on, or with one that the store is
// asked for. w is its place in the queue, which it leaves; nil if it never had one.
func (m *Manager) ask(ctx context.Context, l *Lock, w *waiter) error {
	s := l.session
	l.token = m.newToken()
	if m.takeOver(l, w) {
		return nil
	}
	lease, err := m.store.Acquire(ctx, s.key, l.token)
	if err != nil {
		return err
	}
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	s.lease = lease
	m.renew.add(m, s, lease)
	m.grant(l, w)
	return nil
}

// takeOver makes l the holder if the lease has been handed on with the turn.
func (m *Manager) takeOver(l *Lock, w *waiter) bool {
	s := l.session
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.lease == nil {
		return false
	}
	m.grant(l, w)
	return true
}

// grant ends the turn of l: it holds the lock now, or passes the turn on if it only wanted to read. It is
// called with the shard's mutex held.
func (m *Manager) grant(l *Lock, w *waiter) {
	s := l.session
	s.remove(w)
	s.asking = false
	if l.policy.Mode == Read {
		l.state = released
		m.passTurn(s)
		return
	}
	s.holder = l
	l.begin()
}

// leave takes w, if it is one, out of the queue; and if it had the turn, gives that to the next.
func (m *Manager) leave(s *session, w *waiter) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	hadTurn := w == nil || w.called
	s.remove(w)
	if hadTurn {
		s.asking = false
		m.passTurn(s)
	}
}

// passTurn gives the turn to the head of the queue, and what is held of the lease with it; unless another
// manager's turn is due, or nobody waits here: then the lease ends. It is called with the shard's mutex held.
func (m *Manager) passTurn(s *session) {
	if s.lease != nil && (s.first == nil || s.lease.Due()) {
		m.renew.remove(s.lease)
		s.lease.Release()
		s.lease = nil
	}
	if s.first != nil {
		s.asking = true
		s.first.call()
		return
	}
	delete(s.shard.sessions, s.key)
}

func (m *Manager) newToken() Token {
	var t Token
	copy(t[:], m.prefix[:])
	binary.BigEndian.PutUint64(t[8:], m.serial.Add(1))
	return t
}
