package sessionlock

import "time"

// Lock is a session's lock, held by a request. It ends by Release, by expiry, by the loss of its lease, or by
// Manager.Break. Until it is held it is a place in the queue.
type Lock struct {
	session   *session
	key       Key
	token     Token
	by        Holder
	policy    Policy
	entered   time.Time     // when Acquire began
	waited    time.Duration // zero if the lock was free
	blockedBy Description   // the holder when Acquire began
	turn      chan struct{} // closed when this waiter gets the turn; nil if it had it at once

	// Guarded by the mutex of the session's shard.
	prev, next *Lock // in the queue
	state      state
	since      time.Time
	expires    time.Time     // zero until StartExpiry, or if there is no expiry
	lost       chan struct{} // nil until Lost is called
	lease      Token         // of its lease, which another lock may have acquired and handed on
	local      bool          // it has no lease from the store, or had none when it ended
	waitedFor  bool          // OnWaiter has been called, or is about to be
}

// state is a stage in the life of a lock.
type state int

const (
	waiting state = iota
	held
	released // by Release; or it never held anything
	expired
	lost
	broken
)

// failed returns the error of an Acquire that ends without the lock.
func (l *Lock) failed(err error) error {
	return &WaitError{Err: err, Waited: time.Since(l.entered), BlockedBy: l.blockedBy}
}

// begin starts the hold of l. The caller must hold the shard's mutex.
func (l *Lock) begin() {
	l.state = held
	l.since = time.Now()
	l.local, l.lease = l.session.local, l.session.token
	if l.policy.Expiry > 0 && !l.policy.LateExpiry {
		l.startExpiry()
	}
	if l.session.first != nil || l.session.manager.assumeWaiters.Load() {
		l.notifyWaiter()
	}
}

// StartExpiry starts the expiry of a lock with Policy.LateExpiry: the lock ends Policy.Expiry from now. A second call
// does nothing, nor does a call for a lock that is not held.
func (l *Lock) StartExpiry() {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	if l.state == held && l.policy.Expiry > 0 && l.expires.IsZero() {
		l.startExpiry()
	}
}

// startExpiry starts the expiry. The caller must hold the shard's mutex.
func (l *Lock) startExpiry() {
	l.expires = time.Now().Add(l.policy.Expiry)
	l.session.startExpiry(l.policy.Expiry)
}

// notifyWaiter reports once that another request waits for l. The caller must hold the shard's mutex.
func (l *Lock) notifyWaiter() {
	if l.policy.OnWaiter != nil && !l.waitedFor {
		go l.policy.OnWaiter()
	}
	l.waitedFor = true
}

// HoldFor replaces the lock's Holder. The previous one is not called again.
func (l *Lock) HoldFor(by Holder) {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	l.by = by
}

// Release passes the lock to the next waiter. If the lock has ended, Release does nothing: it never affects a later
// holder.
func (l *Lock) Release() {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	l.end(released)
}

// end ends the lock if it is held, and reports whether it was. The caller must hold the shard's mutex.
func (l *Lock) end(as state) bool {
	if l.state != held {
		return false
	}
	l.state = as
	if !l.expires.IsZero() {
		l.session.expiry.Stop()
	}
	if as != released {
		l.notifyLoss()
	}
	l.session.holder = nil
	l.session.passTurn()
	return true
}

// notifyLoss reports that the lock has ended without Release. The caller must hold the shard's mutex.
func (l *Lock) notifyLoss() {
	if l.lost != nil {
		close(l.lost)
	}
	if l.policy.OnLoss != nil {
		go l.policy.OnLoss(describe(l), l.state.err())
	}
}

// continueLocally marks the lock as held without a lease. The caller must hold the shard's mutex.
func (l *Lock) continueLocally() {
	l.local = true
	if l.policy.OnLocal != nil {
		go l.policy.OnLocal(describe(l))
	}
}

// Lost returns a channel that is closed when the lock ends without Release. Err then returns the reason.
func (l *Lock) Lost() <-chan struct{} {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	if l.lost == nil {
		l.lost = make(chan struct{})
		if l.state.err() != nil {
			close(l.lost)
		}
	}
	return l.lost
}

// Err returns ErrExpired, ErrLost or ErrBroken if the lock has ended without Release, else nil.
func (l *Lock) Err() error {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.state.err()
}

func (s state) err() error {
	switch s {
	case expired:
		return ErrExpired
	case lost:
		return ErrLost
	case broken:
		return ErrBroken
	}
	return nil
}

// Key returns the lock's key.
func (l *Lock) Key() Key { return l.key }

// Token returns the token of this hold, which no other hold has.
func (l *Lock) Token() Token { return l.token }

// LeaseToken returns the token that the store has for the lock. It is the token of an earlier hold if the lease was
// handed on within the manager, and the zero Token if the Lock holds nothing.
func (l *Lock) LeaseToken() Token { return l.lease }

// Local reports whether the lock is held within this manager only, or was when it ended: the store failed, and the
// policy has HoldLocally. It becomes false when the store grants the lease after all.
func (l *Lock) Local() bool {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.local
}

// WaitedFor reports whether another request has waited for the lock since it is held, or may have in another process.
// It is true as soon as there is a waiter, a moment before OnWaiter is called.
func (l *Lock) WaitedFor() bool {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.waitedFor
}

// Waited returns how long Acquire waited for other holders, zero if the lock was free.
func (l *Lock) Waited() time.Duration { return l.waited }

// BlockedBy returns the holder when the wait began, the zero Description if it was none of this process.
func (l *Lock) BlockedBy() Description { return l.blockedBy }

// Since returns the start of the hold, the zero time for a Lock that holds nothing.
func (l *Lock) Since() time.Time { return l.since }

// Expires returns when the lock expires. It is the zero time if there is no expiry, if it has not started, or if the
// Lock holds nothing.
func (l *Lock) Expires() time.Time {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.expires
}
