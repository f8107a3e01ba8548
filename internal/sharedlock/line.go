package sharedlock

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The gates that wait for a lock stand in a line, an item next to it. A lock that is handed on goes to the first: its
// item says whose turn it is. All of this is for fairness only. A gate that has died in the line costs one turn.
const (
	lineTTL      = 3 * time.Second      // of the line, from when a gate has last joined or looked
	lineRefresh  = time.Second          // how often a waiting gate makes it live on
	lineAge      = 5 * time.Millisecond // how old the holder's knowledge of it may be
	turnTTL      = 2 * time.Second      // of a turn
	maxLine      = 64                   // gates
	lineAttempts = 20                   // to write it while others do
)

// lineMember is where the line of key is: the first of its servers that is up. Nil: none is.
func (c *cluster) lineMember(key sessionlock.Key) *member {
	for _, m := range c.membersOf(key) {
		if m.isUp() {
			return m
		}
	}
	return nil
}

// lineItem is what to write for a line that was old on the server, nil if there was none.
func lineItem(name string, old *kv.Item, line []manager) *kv.Item {
	it := &kv.Item{Name: name, Value: lineValue(line), TTL: lineTTL}
	if old != nil {
		it.Version = old.Version
	}
	if len(line) == 0 {
		it.Value, it.TTL = nil, kv.Delete
	}
	return it
}

// leaveLine takes gate out of the line of key, and reports whether it was there. While others write the line it tries
// again: one that does not wait and stays in the line would get a turn that it does not take.
func (c *cluster) leaveLine(key sessionlock.Key, gate manager) bool {
	m := c.lineMember(key)
	if m == nil {
		return false
	}
	name := c.lineName(key)
	for attempt := range lineAttempts {
		// A compare-and-swap: the write fails if another gate has written the line since it was read.
		items, err := m.Read(kv.LaneWrite, name)
		if err != nil {
			return false
		}
		line := parseLine(items[0])
		i := slices.Index(line, gate)
		if i < 0 {
			return false
		}
		if err = m.Write(lineItem(name, items[0], slices.Delete(line, i, i+1))); err == nil {
			return true
		}
		time.Sleep(rand.N(time.Duration(attempt+1) * time.Millisecond))
	}
	return false
}

// nextInLine is the first gate but own that waits; the zero manager: none.
func (c *cluster) nextInLine(key sessionlock.Key, own manager) manager {
	m := c.lineMember(key)
	if m == nil {
		return manager{}
	}
	items, err := m.Read(kv.LaneWrite, c.lineName(key))
	if err != nil {
		return manager{}
	}
	for _, gate := range parseLine(items[0]) {
		if gate != own {
			return gate
		}
	}
	return manager{}
}

// given takes next, for which the lock is kept now, out of the line. If it has left in the meantime, no gate would
// take the lock: it is passed on.
func (c *cluster) given(key sessionlock.Key, next manager) {
	if !c.leaveLine(key, next) {
		c.passOn(c.ticketsOf(key), key, next)
	}
}

// leaveAndPassOn takes gate out of the line of key, and passes on the lock if it is kept for that gate by now.
func (c *cluster) leaveAndPassOn(key sessionlock.Key, gate manager) {
	tickets := c.ticketsOf(key)
	c.background.Go(func() {
		c.leaveLine(key, gate)
		c.passOn(tickets, key, gate)
	})
}

// ticketsOf takes a ticket on each member of the lock, for work in the background that has to keep its place.
func (c *cluster) ticketsOf(key sessionlock.Key) (tickets []*ticket) {
	for _, m := range c.membersOf(key) {
		tickets = append(tickets, m.newTicket(key))
	}
	return tickets
}

// passOn frees the lock if it is kept for gate: the next in line takes it. tickets has one for each member of the lock.
func (c *cluster) passOn(tickets []*ticket, key sessionlock.Key, gate manager) {
	for i, m := range c.membersOf(key) {
		c.background.Go(func() {
			t := tickets[i]
			defer t.leave()
			t.wait()
			_ = m.freeTurn(c.lockName(key), gate)
		})
	}
}

// freeTurn deletes the turn of gate. Those that wait see a free lock, and the first in line takes it.
func (m *member) freeTurn(name string, gate manager) error {
	items, err := m.Read(kv.LaneWrite, name)
	if err != nil {
		return err
	}
	it := items[0]
	if !sameValue(it, turnValue(gate)) {
		return nil
	}
	err = m.Write(&kv.Item{Name: name, TTL: kv.Delete, Version: it.Version})
	if kv.Refused(err) { // gate took its turn in the meantime, or the turn has ended
		return nil
	}
	return err
}
