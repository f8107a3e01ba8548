package memcachelock

import (
	"sync"
	"sync/atomic"

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
