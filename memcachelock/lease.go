package memcachelock

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// lease is one hold of a lock: an item with our token on its server, or on most of them. It is on its way to be
// one until Acquire has returned it.
type lease struct {
	store    *Store
	key      sessionlock.Key
	token    sessionlock.Token
	name     string
	names    []string // the lock, its line and the epoch, which are read together
	value    []byte
	replicas []*replica

	decided chan struct{} // closed when won is known
	won     bool

	mu        sync.Mutex
	released  bool
	handedOn  bool      // within the manager, since the lease was acquired
	line      []manager // the others that wait, as far as we know
	asking    bool      // for the line
	lineAsked time.Time
}

func (s *Store) newLease(key sessionlock.Key, token sessionlock.Token) *lease {
	l := &lease{store: s, key: key, token: token, name: s.lockName(key), decided: make(chan struct{})}
	l.names = []string{l.name, s.lineName(key), s.epochName()}
	l.value = heldValue(Holder{Gate: s.options.Gate, Host: s.options.Host, Since: time.Now(), Token: token})
	for _, v := range s.serversOf(key) {
		l.replicas = append(l.replicas, &replica{lease: l, server: v})
	}
	return l
}

// answer is what one server says to a question about a lease.
type answer struct {
	replica *replica
	vote    vote
	seen    *memcache.Item // the lock
	line    *memcache.Item
	gone    bool  // with voteNo: the lock is nobody's
	err     error // with voteFailed
}

type vote int

const (
	voteYes vote = iota
	voteNo
	voteFailed
)

// tally is what the servers say together.
type tally struct {
	most            int // make a majority
	yes, no, failed int
	rest            int // have not answered
	err             error
}

// decided says whether the rest cannot change it.
func (t *tally) decided() bool {
	could := t.yes + t.no + t.failed + t.rest - t.most
	return t.rest == 0 || t.yes >= t.most || t.no > could || t.failed > could
}

func (t *tally) count(a answer) {
	t.rest--
	switch a.vote {
	case voteYes:
		t.yes++
	case voteNo:
		t.no++
	case voteFailed:
		t.failed++
		t.err = errors.Join(t.err, a.err)
	}
}

// outcome is nil if most said yes, ErrHeld if they could say more yet, else ErrStore.
func (t *tally) outcome() error {
	switch {
	case t.yes >= t.most:
		return nil
	case t.yes+t.no+t.rest >= t.most:
		return sessionlock.ErrHeld
	}
	return storeError(t.err)
}

// ask asks all servers at once, each in its turn, and returns when it is decided. The questions leave their tickets.
// Those that are not heard any more go on beside.
func (l *lease) ask(question func(*replica, *ticket) answer, heard func(answer)) tally {
	n := len(l.replicas)
	answers := make(chan answer, n)
	for _, r := range l.replicas {
		t := r.server.ticket(l.key)
		one := func() {
			t.wait()
			a := question(r, t)
			a.replica = r
			answers <- a
		}
		if n == 1 {
			one()
		} else {
			l.store.background.Go(one)
		}
	}
	result := tally{most: majority(n), rest: n}
	for !result.decided() {
		a := <-answers
		result.count(a)
		if heard != nil {
			heard(a)
		}
	}
	return result
}

// look asks who has the lock, before a waiter asks for it again. The error is ErrHeld if it is not for us.
func (l *lease) look(w *wait) error {
	free, lineKnown, lineServer := false, false, l.store.lineServer(l.key)
	result := l.ask(func(r *replica, t *ticket) answer {
		defer t.leave()
		return r.look(w)
	}, func(a answer) {
		a.replica.looked, a.replica.seen, a.replica.vote = true, a.seen, a.vote
		free = free || a.vote == voteYes && a.seen == nil
		if a.vote != voteFailed && a.replica.server == lineServer {
			w.line, lineKnown = a.line, true
			w.sees(a.seen)
		}
	})
	err := result.outcome()
	if err == nil && free && !w.first() && !w.deferred {
		w.deferred = true // whoever is ahead of us in the line should have it, if he is still there
		return sessionlock.ErrHeld
	}
	if errors.Is(err, sessionlock.ErrHeld) {
		w.deferred = false
		if lineKnown {
			l.store.stayInLine(l.key, w)
		}
	}
	return err
}

// take asks for the lease. The error is ErrHeld if somebody else has it. What was taken in vain is given back,
// beside.
func (l *lease) take() error {
	result := l.ask((*replica).takeOrLeave, nil)
	err := result.outcome()
	l.won = err == nil
	close(l.decided)
	return err
}

// Renew makes the lease live for another TTL. Where it is gone it is added again: nobody has taken it, so far.
func (l *lease) Renew(context.Context) error {
	result := l.ask(func(r *replica, t *ticket) answer {
		defer t.leave()
		return r.renew()
	}, nil)
	switch n := len(l.replicas); {
	case result.yes >= result.most:
		return nil
	case result.no <= n-result.most:
		return storeError(result.err)
	case !l.isReleased():
		l.tellLoss(LeaseLost)
	}
	return sessionlock.ErrLost
}

// Due says whether another gate waits, and the lock has been handed on within this one already.
func (l *lease) Due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handedOn && len(l.line) > 0 {
		return true
	}
	l.handedOn = true
	if !l.asking && time.Since(l.lineAsked) >= lineAge {
		l.asking = true
		l.store.background.Go(l.readLine)
	}
	return false
}

// Release ends the lease beside the request: it deletes the item, or keeps the lock for the gate that waits first.
func (l *lease) Release() {
	l.mu.Lock()
	again := l.released
	l.released = true
	waited := len(l.line) > 0
	l.mu.Unlock()
	if again {
		return
	}
	l.store.end(l)
	tickets := make([]*ticket, len(l.replicas))
	for i, r := range l.replicas {
		tickets[i] = r.server.ticket(l.key)
	}
	l.store.background.Go(func() { l.release(tickets, waited) })
}

func (l *lease) release(tickets []*ticket, waited bool) {
	var next manager
	if waited {
		next = l.store.nextInLine(l.key, manager(l.token.Manager()))
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
		l.store.given(l.key, next)
	}
}

func (l *lease) tellLoss(kind EventKind) {
	l.store.counts.lost.Add(1)
	l.store.tell(Event{Kind: kind, Server: l.replicas[0].server.addr, Key: l.key})
}

func (l *lease) isReleased() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.released
}

// waiters notes who waits for the lock beside us.
func (l *lease) waiters(line []manager) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := manager(l.token.Manager())
	l.line = slices.DeleteFunc(line, func(m manager) bool { return m == own })
	l.asking, l.lineAsked = false, time.Now()
}
