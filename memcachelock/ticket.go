package memcachelock

import (
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// ticket is a place in the order in which things are done to one lock on one server: what a release has begun is
// over before the acquire that follows.
type ticket struct {
	member *member
	key    sessionlock.Key
	before *ticket // nil: nothing is under way
	done   chan struct{}
	given  bool // the lock was given to another gate; known when it is done
}

// newTicket takes the next place. It has to be left.
func (m *member) newTicket(key sessionlock.Key) *ticket {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &ticket{member: m, key: key, done: make(chan struct{})}
	t.before = m.tickets[key]
	m.tickets[key] = t
	return t
}

func (t *ticket) wait() {
	if t.before != nil {
		<-t.before.done
	}
}

// waitUntil waits for the ticket's turn, but no longer than until, and reports whether it has come. If it has not, the
// ticket is left in the background when it has.
func (t *ticket) waitUntil(until time.Time) bool {
	if t.before == nil {
		return true
	}
	select {
	case <-t.before.done:
		return true
	default:
	}
	timeout := time.NewTimer(time.Until(until))
	defer timeout.Stop()
	select {
	case <-t.before.done:
		return true
	case <-timeout.C:
		t.member.store.background.Go(func() {
			t.wait()
			t.leave()
		})
		return false
	}
}

// isGiven reports, after the wait, whether we have just given the lock to another gate: an acquire need not ask then.
func (t *ticket) isGiven() bool { return t.before != nil && t.before.given }

func (t *ticket) leave() {
	t.member.mu.Lock()
	defer t.member.mu.Unlock()
	if t.member.tickets[t.key] == t {
		delete(t.member.tickets, t.key)
	}
	t.before = nil // which is over, and would keep all before it in memory
	close(t.done)
}
