package memcachelock

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// member is one of a store's servers, with what the store has in flight there: tickets, writes in doubt, and the poller
// of the locks that are waited for.
type member struct {
	*server
	store  *Store
	poller *poller
	fleet  *fleetWatch

	// Leases of ours have yet to be added again: those that the server could not be asked for, or all.
	restore, restoreAll atomic.Bool

	mu      sync.Mutex
	tickets map[sessionlock.Key]*ticket
	doubts  []doubt
}

func newMember(s *Store, a Addr, index int) *member {
	o := &s.options
	m := &member{store: s, tickets: make(map[sessionlock.Key]*ticket)}
	m.server = newServer(a, o.forServers())
	m.poller = newPoller(m)
	m.fleet = newFleetWatch(m, index)
	m.hooks = hooks{
		event: func(kind EventKind, err error) {
			if kind == ServerUp {
				m.restore.Store(true)
			}
			s.tell(Event{Kind: kind, Server: a, Err: err})
		},
		lost: func() {
			m.restoreAll.Store(true)
			m.addAgain()
		},
		up: func() {
			m.addAgain()
			m.sweep()
		},
		names: []string{s.fleetName()},
		beat:  m.fleet.beat,
	}
	return m
}

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

// doubt is a write whose result is unknown because its answer was lost. The server may execute it much later: one that
// hung reads what was sent to it when it goes on.
type doubt struct {
	lease  *lease
	looked time.Time // when it was looked up; zero: not yet
}

// maxDoubts bounds what is remembered. Beyond that, leases end by their TTL.
const maxDoubts = 4096

// recheckAfter is how long after the first look a doubt is looked up a second time.
const recheckAfter = time.Second

func (m *member) inDoubt(l *lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.doubts) < maxDoubts {
		m.doubts = append(m.doubts, doubt{lease: l})
	}
}

// sweep deletes what doubtful writes have left, if the server has an answer.
func (m *member) sweep() {
	m.mu.Lock()
	var due, later []doubt
	for _, d := range m.doubts {
		if d.looked.IsZero() || time.Since(d.looked) >= recheckAfter {
			due = append(due, d)
		} else {
			later = append(later, d)
		}
	}
	m.doubts = later
	m.mu.Unlock()
	if len(due) > 0 {
		m.store.background.Go(func() { m.resolve(due) })
	}
}

func (m *member) resolve(due []doubt) {
	for _, d := range due {
		t := m.newTicket(d.lease.key)
		t.wait()
		r := replica{lease: d.lease, member: m}
		over, err := r.removeStray()
		t.leave()
		if first := d.looked.IsZero(); !over && (first || err != nil) {
			if err == nil {
				d.looked = time.Now()
			}
			m.mu.Lock()
			m.doubts = append(m.doubts, d)
			m.mu.Unlock()
		}
	}
}

// addAgain adds the leases of ours that the server may lack, if it is up. Those that fail are left to the next
// heartbeat.
func (m *member) addAgain() {
	if !m.isUp() {
		return
	}
	all := m.restoreAll.Swap(false)
	if some := m.restore.Swap(false); some || all {
		m.store.background.Go(func() { m.store.addAgain(m, all) })
	}
}

func (s *Store) addAgain(m *member, all bool) {
	s.mu.Lock()
	ours := make(chan *lease, len(s.leases))
	for _, l := range s.leases {
		ours <- l
	}
	s.mu.Unlock()
	close(ours)
	var workers sync.WaitGroup
	for range min(len(ours), maxTakes) {
		workers.Go(func() {
			for l := range ours {
				l.addAgain(m, all)
			}
		})
	}
	workers.Wait()
}
