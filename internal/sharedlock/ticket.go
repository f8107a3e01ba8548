package sharedlock

import (
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// tickets keep the order in which things are done to each lock on one server.
type tickets struct {
	background *sync.WaitGroup

	mu   sync.Mutex
	last map[sessionlock.Key]*ticket
}

// ticket is a place in the order in which things are done to one lock on one server: what a release has begun is
// over before the acquire that follows.
type ticket struct {
	of     *tickets
	key    sessionlock.Key
	before *ticket       // nil: nothing is under way
	done   chan struct{} // closed by leave
	given  bool          // the lock was given to another gate; known when it is done
}

// newTicket takes the next place. It has to be left.
func (q *tickets) newTicket(key sessionlock.Key) *ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &ticket{of: q, key: key, before: q.last[key], done: make(chan struct{})}
	if q.last == nil {
		q.last = make(map[sessionlock.Key]*ticket)
	}
	q.last[key] = t
	return t
}

// wait waits for the ticket's turn, however long that takes.
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
		t.of.background.Go(func() {
			t.wait()
			t.leave()
		})
		return false
	}
}

// isGiven reports, after the wait, whether we have just given the lock to another gate: an acquire need not ask then.
func (t *ticket) isGiven() bool { return t.before != nil && t.before.given }

// leave ends the ticket, and lets the next one go on. Each ticket is left exactly once.
func (t *ticket) leave() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.of.last[t.key] == t {
		delete(t.of.last, t.key)
	}
	t.before = nil // which is over, and would keep all before it in memory
	close(t.done)
}
