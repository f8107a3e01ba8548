package sessionlock

import "time"

// Lock is what a request holds. It ends by Release, when its expiry is over, when its lease is lost, or by Break.
// Until it is held it is a place in the queue.
type Lock struct {
	session *session
	key     Key
	token   Token
	by      Holder
	policy  Policy
	entered time.Time     // when Acquire began
	waited  time.Duration // zero if nobody was in the way
	behind  Description
	turn    chan struct{} // closed when the turn is this waiter's; nil of one that had it at once

	// Guarded by the mutex of the session's shard.
	prev, next *Lock // in the queue
	state      state
	since      time.Time
	expires    time.Time     // zero until StartExpiry, or if there is no expiry
	lost       chan struct{} // nil until somebody asks
	lease      Token         // of the lease that it stands on, which may have been handed on to it
	local      bool          // it stands, or stood in the end, on no lease
	waitedFor  bool          // OnWaiter has been told
}

// state is how far a lock is in its life.
type state int

const (
	waiting state = iota
	held
	released // by Release; or it never held anything
	expired
	lost
	broken
)

// failed is the error of an Acquire that did not lead to l.
func (l *Lock) failed(err error) error {
	return &WaitError{Err: err, Waited: time.Since(l.entered), Behind: l.behind}
}

// begin makes l held from now on. It is called with the shard's mutex held.
func (l *Lock) begin() {
	l.state = held
	l.since = time.Now()
	l.local, l.lease = l.session.local, l.session.token
	if l.policy.Expiry > 0 && !l.policy.LateExpiry {
		l.startExpiry()
	}
	if l.session.first != nil {
		l.tellWaiter()
	}
}

// StartExpiry starts the expiry of a lock with Policy.LateExpiry: it ends at Policy.Expiry from now. A second call, and
// one for a lock that is not held, does nothing.
func (l *Lock) StartExpiry() {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	if l.state == held && l.policy.Expiry > 0 && l.expires.IsZero() {
		l.startExpiry()
	}
}

// startExpiry is called with the shard's mutex held.
func (l *Lock) startExpiry() {
	l.expires = time.Now().Add(l.policy.Expiry)
	l.session.startExpiry(l.policy.Expiry)
}

// tellWaiter says, once, that somebody waits for l. It is called with the shard's mutex held.
func (l *Lock) tellWaiter() {
	if l.policy.OnWaiter != nil && !l.waitedFor {
		go l.policy.OnWaiter()
	}
	l.waitedFor = true
}

// HoldFor makes by the one whom the lock is held for, or was. Who held it before is not asked any more.
func (l *Lock) HoldFor(by Holder) {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	l.by = by
}

// Release gives the lock to the next waiter. A lock that has ended is nothing to release: it never touches one
// that somebody else has by now.
func (l *Lock) Release() {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	l.end(released)
}

// end ends the lock if it is held, and says whether it was. It is called with the shard's mutex held.
func (l *Lock) end(as state) bool {
	if l.state != held {
		return false
	}
	l.state = as
	if !l.expires.IsZero() {
		l.session.expiry.Stop()
	}
	if as != released {
		l.tell()
	}
	l.session.holder = nil
	l.session.passTurn()
	return true
}

// tell says that the lock has ended without Release. It is called with the shard's mutex held.
func (l *Lock) tell() {
	if l.lost != nil {
		close(l.lost)
	}
	if l.policy.OnLoss != nil {
		go l.policy.OnLoss(describe(l), l.state.err())
	}
}

// goOnLocally says that the lock goes on without a lease. It is called with the shard's mutex held.
func (l *Lock) goOnLocally() {
	l.local = true
	if l.policy.OnLocal != nil {
		go l.policy.OnLocal(describe(l))
	}
}

// Lost is closed when the lock ends without Release: Err says why.
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

// Err is ErrExpired, ErrLost or ErrBroken of a lock that ended by itself, else nil.
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

// Key is the name of the lock.
func (l *Lock) Key() Key { return l.key }

// Token tells this hold from all others.
func (l *Lock) Token() Token { return l.token }

// LeaseToken is the token that the store knows the lock by: the one of the hold that has acquired the lease, if that
// was handed on within the manager. It is the zero Token of a Lock that holds nothing.
func (l *Lock) LeaseToken() Token { return l.lease }

// Local reports whether the lock is held within this manager only, or was in the end: the store failed, and the policy
// has it held all the same. It becomes false when the store grants the lease after all.
func (l *Lock) Local() bool {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.local
}

// Waited is how long Acquire waited for others; zero if nobody was in the way.
func (l *Lock) Waited() time.Duration { return l.waited }

// Behind is who held the lock when the wait for it began; the zero Description if it was nobody of this process.
func (l *Lock) Behind() Description { return l.behind }

// Since is when the hold began; the zero time of a Lock that holds nothing.
func (l *Lock) Since() time.Time { return l.since }

// Expires is when the hold ends at the latest; the zero time if it has no expiry, if that has not started, or if
// nothing is held.
func (l *Lock) Expires() time.Time {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.expires
}
