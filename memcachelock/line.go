package memcachelock

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The gates that wait for a lock stand in a line, an item next to it. A lock that is handed on goes to the first: its
// item says whose turn it is. All of this is for fairness only. A gate that has died in the line costs one turn.
const (
	lineSeconds  = 3                    // of the line, from when a gate has last joined or looked
	lineRefresh  = time.Second          // how often a waiting gate makes it live on
	lineAge      = 5 * time.Millisecond // how old the holder's knowledge of it may be
	turnSeconds  = 2                    // of a turn
	maxLine      = 64                   // gates
	lineAttempts = 20                   // to write it while others do
)

// lineMember is where the line of key is: the first of its servers that is up. Nil: none is.
func (s *Store) lineMember(key sessionlock.Key) *member {
	for _, m := range s.membersOf(key) {
		if m.isUp() {
			return m
		}
	}
	return nil
}

// join is the way of a wait into the line.
type join struct {
	wait *wait
	item *item
}

// joins is the way of v's wait into the line, nil if there is nothing to do. It is called with the wait's mutex held.
func (v *view) joins() *join {
	w := v.wait
	if w.over || w.askable || v.member != w.store.lineMember(w.key) || v.member.inGrace() {
		return nil
	}
	line := parseLine(v.queue)
	if slices.Contains(line, w.manager) || len(line) >= maxLine {
		return nil
	}
	it := lineItem(w.line, v.queue, append(line, w.manager))
	w.inLine, w.refreshed = true, time.Now()
	return &join{w, it}
}

// join writes the lines of waits that have found their lock held. One that another gate has written meanwhile is left to
// the next look.
func (p *poller) join(joins []*join) {
	if len(joins) == 0 {
		return
	}
	var items []*item
	for _, j := range joins {
		items = append(items, j.item)
	}
	_ = p.member.polls.inTurn(false, func(c *wire) error {
		_, err := c.writeAll(items)
		return err
	})
	for _, j := range joins {
		j.wait.mu.Lock()
		over := j.wait.over
		j.wait.mu.Unlock()
		if s := j.wait.store; over { // it may have left the line before it has joined
			s.leaveAndPassOn(j.wait)
		}
	}
}

// lineItem is what to write for a line that was old on the server, nil if there was none.
func lineItem(name string, old *item, line []manager) *item {
	it := &item{name: name, value: lineValue(line), seconds: lineSeconds}
	if old != nil {
		it.casID = old.casID
	}
	if len(line) == 0 {
		it.value, it.seconds = nil, deleteNow
	}
	return it
}

// leaveLine takes gate out of the line of key, and reports whether it was there. While others write the line it tries
// again: one that does not wait and stays in the line would get a turn that it does not take.
func (s *Store) leaveLine(key sessionlock.Key, gate manager) bool {
	m := s.lineMember(key)
	if m == nil {
		return false
	}
	name := s.lineName(key)
	for attempt := range lineAttempts {
		items, err := m.get(m.releases, name)
		if err != nil {
			return false
		}
		line := parseLine(items[name])
		i := slices.Index(line, gate)
		if i < 0 {
			return false
		}
		if err = m.write(m.releases, lineItem(name, items[name], slices.Delete(line, i, i+1))); err == nil {
			return true
		}
		time.Sleep(rand.N(time.Duration(attempt+1) * time.Millisecond))
	}
	return false
}

// nextInLine is the first gate but own that waits; the zero manager: none.
func (s *Store) nextInLine(key sessionlock.Key, own manager) manager {
	m := s.lineMember(key)
	if m == nil {
		return manager{}
	}
	name := s.lineName(key)
	items, err := m.get(m.releases, name)
	if err != nil {
		return manager{}
	}
	for _, gate := range parseLine(items[name]) {
		if gate != own {
			return gate
		}
	}
	return manager{}
}

// readLine looks up which gates wait.
func (l *lease) readLine() {
	var line []manager
	name := l.store.lineName(l.key)
	if m := l.store.lineMember(l.key); m != nil {
		if items, err := m.get(m.others, name); err == nil {
			line = parseLine(items[name])
		}
	}
	l.waiters(line)
}

// given takes next, for which the lock is kept now, out of the line. If it has left in the meantime, no gate would
// take the lock: it is passed on.
func (s *Store) given(key sessionlock.Key, next manager) {
	if !s.leaveLine(key, next) {
		s.passOn(s.ticketsOf(key), key, next)
	}
}

// Withdraw leaves the line, and passes on the lock if it is kept for this manager by now.
func (s *Store) Withdraw(key sessionlock.Key, token sessionlock.Token) {
	if w := s.waitOf(key, token); s.endWait(w) {
		s.leaveAndPassOn(w)
	}
}

func (s *Store) leaveAndPassOn(w *wait) {
	tickets := s.ticketsOf(w.key)
	s.background.Go(func() {
		s.leaveLine(w.key, w.manager)
		s.passOn(tickets, w.key, w.manager)
	})
}

func (s *Store) ticketsOf(key sessionlock.Key) (tickets []*ticket) {
	for _, m := range s.membersOf(key) {
		tickets = append(tickets, m.newTicket(key))
	}
	return tickets
}

// passOn frees the lock if it is kept for gate: the next in line takes it.
func (s *Store) passOn(tickets []*ticket, key sessionlock.Key, gate manager) {
	for _, t := range tickets {
		s.background.Go(func() {
			defer t.leave()
			t.wait()
			_ = t.member.freeTurn(s.lockName(key), gate)
		})
	}
}

// freeTurn deletes the turn of gate. Those that wait see a free lock, and the first in line takes it.
func (m *member) freeTurn(name string, gate manager) error {
	items, err := m.get(m.releases, name)
	if err != nil {
		return err
	}
	it := items[name]
	if !sameValue(it, turnValue(gate)) {
		return nil
	}
	err = m.write(m.releases, &item{name: name, seconds: deleteNow, casID: it.casID})
	if errors.Is(err, errConflict) || errors.Is(err, errMissing) {
		return nil
	}
	return err
}
