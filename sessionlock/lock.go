package sessionlock

import "time"

// Lock is what a request holds. It ends by Release, when its expiry is over, or when its lease is lost.
type Lock struct {
	manager *Manager
	session *session
	key     Key
	by      Holder
	policy  Policy
	token   Token
	waited  time.Duration
	behind  Description
	since   time.Time

	// Guarded by the mutex of the session's shard.
	state  state
	expiry *time.Timer
	lost   chan struct{} // nil until somebody asks
}

// state is how far a lock is in its life.
type state int

const (
	held     state = iota
	released       // by Release; or it never held anything
	expired
	lost
	broken
)

// begin makes l held from now on. It is called with the shard's mutex held.
func (l *Lock) begin() {
	l.since = time.Now()
	if l.policy.Expiry > 0 {
		l.expiry = time.AfterFunc(l.policy.Expiry, func() { l.end(expired) })
	}
}

// Release gives the lock to the next waiter. A lock that has ended is nothing to release: it never touches one
// that somebody else has by now.
func (l *Lock) Release() { l.end(released) }

// end ends the lock if it is held, and says whether it was.
func (l *Lock) end(as state) bool {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	return l.endLocked(as)
}

func (l *Lock) endLocked(as state) bool {
	if l.state != held {
		return false
	}
	l.state = as
	if l.expiry != nil {
		l.expiry.Stop()
	}
	if as != released {
		l.tell()
	}
	s := l.session
	s.holder = nil
	l.manager.passTurn(s)
	return true
}

// tell says that the lock has ended without Release. It is called with the shard's mutex held.
func (l *Lock) tell() {
	if l.lost != nil {
		close(l.lost)
	}
	if l.policy.OnLoss != nil {
		go l.policy.OnLoss(l.state.err())
	}
}

// Lost is closed when the lock ends without Release: Err says why.
func (l *Lock) Lost() <-chan struct{} {
	mu := &l.session.shard.mu
	mu.Lock()
	defer mu.Unlock()
	if l.lost == nil {
		l.lost = make(chan struct{})
		if l.state != held && l.state != released {
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

// Waited is how long Acquire waited, and Behind who held the lock when that began; the zero Description if it
// was nobody of this process.
func (l *Lock) Waited() time.Duration { return l.waited }

// Behind is who held the lock when the wait for it began. See Waited.
func (l *Lock) Behind() Description { return l.behind }

// Since is when the hold began, and Expires when it ends at the latest: the zero time if it has no expiry. Both
// are zero of a Lock that holds nothing.
func (l *Lock) Since() time.Time { return l.since }

// Expires is when the hold ends at the latest. See Since.
func (l *Lock) Expires() time.Time {
	if l.policy.Expiry == 0 || l.since.IsZero() {
		return time.Time{}
	}
	return l.since.Add(l.policy.Expiry)
}
