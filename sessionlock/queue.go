package sessionlock

import (
	"errors"
	"time"
)

// session is the state of a session that is held or waited for. It is in its shard's map exactly that long. Without a
// holder, the first waiter has the turn: it takes over the lease, or acquires one from the store. So there is always
// one lock whose end calls passTurn.
//
// The struct is reused for other sessions of the shard. A stale Lock or renewal that still points to it must notice
// that itself, with the shard's mutex held.
type session struct {
	manager *Manager
	shard   *shard

	// Guarded by the shard's mutex.
	key     Key
	holder  *Lock       // nil: the first waiter has the turn
	expiry  *time.Timer // of the holder; nil if no holder has had one
	lease   Lease       // nil: to be acquired from the store
	token   Token       // with which the lease was acquired
	local   bool        // the lease was adopted, and the store has not granted it yet
	renewal *renewal    // of the lease; nil if it needs none
	refused Token       // of the last Acquire, if it is to be retried: the store may have noted that we wait
	first   *Lock
	last    *Lock
	length  int
}

// waiting returns the number of waiters. The first one does not count if it is only about to take a free lock.
func (s *session) waiting() int {
	if s.holder == nil && s.refused == (Token{}) {
		return s.length - 1
	}
	return s.length
}

// takeOver makes l, which has the turn, the holder if the lease was handed on with the turn. It reports whether it did.
func (s *session) takeOver(l *Lock) bool {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.lease == nil {
		return false
	}
	s.grant(l)
	return true
}

// grant ends the turn of l: l becomes the holder, or passes the turn on if it only needs to read. The caller must hold
// the shard's mutex.
func (s *session) grant(l *Lock) {
	s.remove(l)
	if l.policy.Mode == Read {
		l.state = released
		s.passTurn()
		return
	}
	s.holder = l
	l.begin()
}

// leave removes l from the queue, and passes its turn on if it had one.
func (s *session) leave(l *Lock) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	hadTurn := s.holder == nil && s.first == l
	s.remove(l)
	if hadTurn {
		s.passTurn()
	}
}

// passTurn gives the turn to the first waiter. The lease goes with it, unless it ends: because another manager's turn
// is due, because the store has not granted it, or because no request waits here. The caller must hold the shard's
// mutex.
func (s *session) passTurn() {
	if s.lease != nil && (s.first == nil || s.local || s.lease.ShouldYield()) {
		s.endLease()
	}
	if s.first != nil {
		close(s.first.turn)
		return
	}
	if s.refused != (Token{}) {
		s.manager.store.Withdraw(s.key, s.refused)
		s.refused = Token{}
	}
	delete(s.shard.sessions, s.key)
	s.shard.spare = s
}

// startExpiry ends the holder's lock after d if it is still held then. The caller must hold the shard's mutex.
func (s *session) startExpiry(d time.Duration) {
	if s.expiry == nil {
		s.expiry = time.AfterFunc(d, s.expire)
		return
	}
	s.expiry.Reset(d)
}

// expire ends the holder's lock if it has expired. It has not if the lock changed hands while the timer fired.
func (s *session) expire() {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if l := s.holder; l != nil && !l.expires.IsZero() && !time.Now().Before(l.expires) {
		l.end(expired)
	}
}

// lose ends the lease that r renews and the lock that depends on it, unless they have ended. If only the store fails, a
// lock with HoldLocally continues without the lease.
func (s *session) lose(r *renewal, why error) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.renewal != r {
		return
	}
	l := s.holder
	if l != nil && l.policy.HoldLocally && !errors.Is(why, ErrLost) {
		s.local = true
		s.manager.renewer.keep(r)
		l.continueLocally()
		return
	}
	s.endLease()
	if l != nil {
		l.end(lost)
	}
}

// confirm notes that the store has now granted the lease of a lock that was held locally.
func (s *session) confirm(r *renewal) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.renewal != r {
		return
	}
	s.local = false
	if s.holder != nil {
		s.holder.local = false
	}
}

// setLease sets the lease of the session, which no longer waits in the store. The caller must hold the shard's mutex.
func (s *session) setLease(lease Lease, token Token) {
	s.lease, s.token, s.refused = lease, token, Token{}
}

func (s *session) endLease() {
	s.manager.renewer.remove(s.renewal)
	s.lease.Release()
	s.lease, s.renewal, s.local = nil, nil, false
}

// push appends l to the queue.
func (s *session) push(l *Lock) {
	l.session, l.prev = s, s.last
	if s.last != nil {
		s.last.next = l
	} else {
		s.first = l
	}
	s.last = l
	s.length++
}

// remove removes l from the queue.
func (s *session) remove(l *Lock) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		s.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		s.last = l.prev
	}
	l.prev, l.next = nil, nil
	s.length--
}
