package sessionlock

import (
	"errors"
	"time"
)

// session is what is known of a session that somebody holds or waits for, and it is in its shard's map for as
// long as that is so. Without a holder the turn is the first waiter's: he takes over the lease, or asks the store
// for one. So there is always somebody who will call passTurn.
//
// Once it is over it may become another session of its shard. Who still knows it then, a lock that has ended or a
// renewal that has, finds that out by itself, with the shard's mutex held.
type session struct {
	manager *Manager
	shard   *shard

	// Guarded by the shard's mutex.
	key     Key
	holder  *Lock       // nil: the turn is the first waiter's
	expiry  *time.Timer // of the holder; nil if no holder had one yet
	lease   Lease       // nil: the store has to be asked for it
	token   Token       // that the lease was acquired with
	local   bool        // the lease is adopted, and the store has not granted it so far
	renewal *renewal    // of the lease; nil if it needs none
	refused Token       // of the last Acquire, if the store was to be asked again: it may know that we wait
	first   *Lock
	last    *Lock
	length  int
}

// waiting is how many wait for others. The first waiter does not, if the lock is his but for the asking.
func (s *session) waiting() int {
	if s.holder == nil && s.refused == (Token{}) {
		return s.length - 1
	}
	return s.length
}

// takeOver makes l, whose turn it is, the holder if the lease has been handed on with the turn.
func (s *session) takeOver(l *Lock) bool {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.lease == nil {
		return false
	}
	s.grant(l)
	return true
}

// grant ends the turn of l: it holds the lock now, or passes the turn on if it only wanted to read. It is
// called with the shard's mutex held.
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

// leave takes l out of the queue; if it had the turn, that is the next one's now.
func (s *session) leave(l *Lock) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	hadTurn := s.holder == nil && s.first == l
	s.remove(l)
	if hadTurn {
		s.passTurn()
	}
}

// passTurn gives the turn to the first waiter, and the lease with it; unless another manager's turn is due, the store
// has not granted the lease, or nobody waits here: then the lease ends. It is called with the shard's mutex held.
func (s *session) passTurn() {
	if s.lease != nil && (s.first == nil || s.local || s.lease.Due()) {
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

// startExpiry ends the holder's lock after d, if it is held for so long. It is called with the shard's mutex held.
func (s *session) startExpiry(d time.Duration) {
	if s.expiry == nil {
		s.expiry = time.AfterFunc(d, s.expire)
		return
	}
	s.expiry.Reset(d)
}

// expire ends the holder's lock if its time has come. It has not for the one who took over while the timer of his
// predecessor went off.
func (s *session) expire() {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if l := s.holder; l != nil && !l.expires.IsZero() && !time.Now().Before(l.expires) {
		l.end(expired)
	}
}

// lose ends the lease that r renews, and the lock that stands on it, if they have not ended yet. A lock that may be
// held locally goes on if it is only the store that fails.
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
		l.goOnLocally()
		return
	}
	s.endLease()
	if l != nil {
		l.end(lost)
	}
}

// confirm notes that the store has granted the lease that r renews, which was held locally.
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

// setLease makes lease that of the session: the store need no longer know that we wait. It is called with the shard's
// mutex held.
func (s *session) setLease(lease Lease, token Token) {
	s.lease, s.token, s.refused = lease, token, Token{}
}

func (s *session) endLease() {
	s.manager.renewer.remove(s.renewal)
	s.lease.Release()
	s.lease, s.renewal, s.local = nil, nil, false
}

// push puts l behind those who wait.
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

// remove takes l, which waits, out of the queue.
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
