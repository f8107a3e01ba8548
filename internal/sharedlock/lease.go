package sharedlock

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// lease is one hold of a lock: an item with our token on its server, or on a majority of them. It is on its way to be
// one until Acquire has returned it, or adopted until a renewal has gone well.
type lease struct {
	*cluster
	key      sessionlock.Key
	token    sessionlock.Token
	name     string // of its item
	line     string // of the item of its line
	ended    func() // is called when it is released
	value    []byte
	replicas []*replica
	until    time.Time // when to give up taking it
	losses   []uint64  // of the servers, before it was taken; with more since then, the item may be gone

	decided chan struct{} // closed when won is known
	won     bool          // guarded by decided

	mu        sync.Mutex
	released  bool
	handedOn  bool      // within the manager, since the lease was acquired
	waiting   []manager // the others that wait, as far as we know
	asking    bool      // for the line
	lineAsked time.Time
	missing   map[*member]time.Time // when its item was found missing while no gate can know which one had the lock
}

// newLease makes a lease that says it was acquired at now, to the millisecond. That has to differ between leases with
// one token: it is what tells their items apart.
func (c *cluster) newLease(key sessionlock.Key, token sessionlock.Token, now time.Time) *lease {
	l := &lease{
		cluster: c, key: key, token: token, name: c.lockName(key), line: c.lineName(key),
		until: time.Now().Add(c.options.Timeout), decided: make(chan struct{}),
	}
	l.value = heldValue(sessionlock.RemoteHolder{Gate: c.gateName(), Host: c.options.Host, Since: now, Token: token})
	for _, m := range c.membersOf(key) {
		l.replicas = append(l.replicas, &replica{lease: l, member: m})
		l.losses = append(l.losses, m.State().Losses)
	}
	return l
}

// doubt is a write of the lease's item, of which no answer has come.
func (l *lease) doubt() doubt {
	return doubt{key: l.key, name: l.name, value: l.value, isLive: func() bool {
		<-l.decided
		return l.won && !l.isReleased()
	}}
}

// askAll runs request against all servers concurrently, in the order of the tickets of each, and returns as soon as the
// result is certain. request leaves its ticket. heard gets the answers; late ones are discarded.
func (l *lease) askAll(request func(*replica, *ticket) answer, heard func(answer)) votes {
	n := len(l.replicas)
	answers := make(chan answer, n) // room for all: no late one blocks its goroutine
	for i, r := range l.replicas {
		t := r.member.newTicket(l.key)
		one := func() {
			a := request(r, t)
			a.replica = i
			answers <- a
		}
		if n == 1 {
			one() // without a quorum no goroutine is needed
		} else {
			l.background.Go(one)
		}
	}
	result := votes{majority: majority(n), pending: n}
	for !result.decided() {
		a := <-answers
		result.count(a)
		heard(a)
	}
	return result
}

// acquire asks for the lease. The error is ErrHeld if another gate has it. What was taken in vain is given back in the
// background. found is what was there instead, on the servers that have said it.
func (l *lease) acquire() (found [][]*kv.Item, err error) {
	found = make([][]*kv.Item, len(l.replicas))
	result := l.askAll((*replica).acquireOrLeave, func(a answer) { found[a.replica] = a.found })
	err = result.outcome()
	l.won = err == nil
	close(l.decided) // lets the replicas that said yes give it back, if it is not won
	return found, err
}

// Renew makes the lease live for another TTL. Where it is gone it is added again.
func (l *lease) Renew(context.Context) error {
	result := l.askAll(func(r *replica, t *ticket) answer {
		defer t.leave()
		t.wait()
		return r.renew()
	}, func(answer) {})
	switch n := len(l.replicas); {
	case result.yes >= result.majority:
		return nil
	case result.no <= n-result.majority: // a majority may still have it, as far as is known: the next renewal tries again
		return storeError(result.err)
	case !l.isReleased():
		l.tellLoss(LeaseLost)
	}
	return sessionlock.ErrLost
}

// foundMissing notes that the item was missing on m, for so long that another gate may have had the lock there. A
// majority of that is a loss.
func (l *lease) foundMissing(m *member) {
	l.mu.Lock()
	if l.missing == nil {
		l.missing = make(map[*member]time.Time)
	}
	l.missing[m] = time.Now()
	n := 0
	for _, at := range l.missing {
		if time.Since(at) < l.ttl() {
			n++
		}
	}
	l.mu.Unlock()
	if n >= majority(len(l.replicas)) {
		l.tellLoss(LeaseGone)
	}
}

// ShouldYield reports whether another gate waits, and the lock has been handed on within this one already.
func (l *lease) ShouldYield() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handedOn && len(l.waiting) > 0 {
		return true
	}
	l.handedOn = true // from the second hand-over on, other gates come first
	if !l.asking && time.Since(l.lineAsked) >= lineAge {
		l.asking = true
		l.background.Go(l.readLine)
	}
	return false
}

// Release ends the lease in the background: it deletes the item, or keeps the lock for the gate that waits first.
func (l *lease) Release() {
	l.mu.Lock()
	again := l.released
	l.released = true
	waited := len(l.waiting) > 0
	l.mu.Unlock()
	if again {
		return
	}
	l.ended()
	// The tickets are taken before Release returns, so that an acquire that follows comes after the release.
	tickets := make([]*ticket, len(l.replicas))
	for i, r := range l.replicas {
		tickets[i] = r.member.newTicket(l.key)
	}
	l.background.Go(func() { l.release(tickets, waited) })
}

// release frees the items. If a gate waits, they become its turn, and it is taken out of the line.
func (l *lease) release(tickets []*ticket, waited bool) {
	var next manager
	if waited {
		next = l.nextInLine(l.key, manager(l.token.Manager()))
	}
	var all sync.WaitGroup
	for i, t := range tickets {
		one := func() {
			defer t.leave()
			t.wait()
			t.given = l.replicas[i].release(next)
		}
		if len(tickets) == 1 {
			one()
		} else {
			all.Go(one)
		}
	}
	all.Wait()
	lost := 0
	for _, r := range l.replicas {
		if r.lost {
			lost++
		}
	}
	if lost >= majority(len(l.replicas)) {
		l.tellLoss(LeaseGone)
	}
	if next != (manager{}) {
		l.given(l.key, next)
	}
}

// tellLoss counts a loss, and reports it.
func (l *lease) tellLoss(kind EventKind) {
	l.lost.Add(1)
	l.tell(Event{Kind: kind, Server: l.replicas[0].member.Name(), Key: l.key})
}

func (l *lease) isReleased() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.released
}

// waiters notes which gates wait for the lock.
func (l *lease) waiters(line []manager) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := manager(l.token.Manager())
	l.waiting = slices.DeleteFunc(line, func(m manager) bool { return m == own })
	l.asking, l.lineAsked = false, time.Now()
}

// readLine looks up which gates wait. An error counts as none.
func (l *lease) readLine() {
	var line []manager
	if m := l.lineMember(l.key); m != nil {
		if items, err := m.Read(kv.LaneRead, l.line); err == nil {
			line = parseLine(items[0])
		}
	}
	l.waiters(line)
}
