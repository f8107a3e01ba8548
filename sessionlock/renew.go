package sessionlock

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// renewer renews the leases of a manager at each third of their TTL. One timer serves all: they stand in a list in
// the order of their times, which is nearly that of their coming, as all live equally long. A few goroutines talk
// to the store, so that one server which does not answer holds up neither the others' leases nor the timer. The
// lease that could not be renewed for a TTL is lost, whatever the store may say later.
type renewer struct {
	ttl time.Duration // zero: leases need no renewal

	mu      sync.Mutex
	order   list.List // of *renewal, by their time
	timer   *time.Timer
	due     []*renewal // for the workers, the first one first
	workers int
}

// maxWorkers bounds how many leases are renewed at once. A store may renew them together.
const maxWorkers = 256

// renewal is a lease on its way through the renewer, whose mutex guards it.
type renewal struct {
	session *session
	lease   Lease
	place   *list.Element // in order; nil if it is not to be renewed any more
	at      time.Time     // when to look at it again
	asked   time.Time     // the begin of the renewal that is under way
	until   time.Time     // the lease lives at least as long
	waiting bool          // for a worker, or with one
	local   bool          // the store has yet to grant the lease: it has no until
}

// everyLocal is the time between two attempts to have a lease granted that is held locally.
const everyLocal = time.Second

// now is the time from which the TTL of a new lease counts: before the store is asked for it.
func (r *renewer) now() (t time.Time) {
	if r.ttl > 0 {
		t = time.Now()
	}
	return t
}

// every is the time between two renewals of a lease, rounded up: the third time is not before the TTL is over.
func (r *renewer) every() time.Duration { return (r.ttl + 2) / 3 }

// add renews lease from now on. It was asked for at start. The renewal is nil if leases need none.
func (r *renewer) add(s *session, lease Lease, start time.Time) *renewal {
	if r.ttl == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &renewal{session: s, lease: lease, until: start.Add(r.ttl)}
	r.insert(e, start)
	if r.timer == nil || r.order.Front() == e.place {
		r.setTimer()
	}
	return e
}

// addLocal renews lease, which the store has not granted, until it has.
func (r *renewer) addLocal(s *session, lease Lease) *renewal {
	if r.ttl == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e := &renewal{session: s, lease: lease, local: true}
	r.insertFirst(e)
	return e
}

// keep goes on renewing e, which could not be renewed in time, as one that is held locally.
func (r *renewer) keep(e *renewal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drop(e); r.ttl > 0 {
		e.local = true
		r.insertFirst(e)
	}
}

func (r *renewer) insertFirst(e *renewal) {
	r.insert(e, time.Now())
	if r.timer == nil || r.order.Front() == e.place {
		r.setTimer()
	}
}

// insert puts e where its next time is, which is every after from; or, if it would be lost by then, just when.
func (r *renewer) insert(e *renewal, from time.Time) {
	switch e.at = from.Add(r.every()); {
	case e.local:
		e.at = from.Add(min(everyLocal, r.every()))
	case e.at.After(e.until):
		e.at = e.until
	}
	for before := r.order.Back(); before != nil; before = before.Prev() {
		if !before.Value.(*renewal).at.After(e.at) {
			e.place = r.order.InsertAfter(e, before)
			return
		}
	}
	e.place = r.order.PushFront(e)
}

// setTimer sets the timer for the first lease.
func (r *renewer) setTimer() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if first := r.order.Front(); first != nil {
		r.timer = time.AfterFunc(time.Until(first.Value.(*renewal).at), r.tick)
	}
}

// remove ends the renewing of e. One that is with a worker comes to its end, and its result is not looked at.
func (r *renewer) remove(e *renewal) {
	if e == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(e)
}

func (r *renewer) drop(e *renewal) {
	if e.place != nil {
		r.order.Remove(e.place)
		e.place = nil
	}
}

// tick gives the leases whose time has come to the workers, ends those that are lost, and sets the timer for the
// next.
func (r *renewer) tick() {
	for _, e := range r.takeDue(time.Now()) {
		e.session.lose(e, ErrStore)
	}
}

func (r *renewer) takeDue(now time.Time) (gone []*renewal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for first := r.order.Front(); first != nil; first = r.order.Front() {
		e := first.Value.(*renewal)
		if e.at.After(now) {
			break
		}
		r.drop(e)
		if e.local || e.until.After(now) {
			r.insert(e, now)
			r.enqueue(e, now)
		} else {
			gone = append(gone, e)
		}
	}
	r.setTimer()
	return gone
}

// enqueue hands e to the workers, if the last renewal of it is over.
func (r *renewer) enqueue(e *renewal, now time.Time) {
	if e.waiting {
		return
	}
	e.waiting, e.asked = true, now
	r.due = append(r.due, e)
	if r.workers < maxWorkers {
		r.workers++
		go r.work()
	}
}

// work renews what is due, until there is nothing.
func (r *renewer) work() {
	for e := r.next(); e != nil; e = r.next() {
		ctx, cancel := context.WithTimeout(context.Background(), r.every())
		err := e.lease.Renew(ctx)
		cancel()
		granted := r.done(e, err)
		switch {
		case errors.Is(err, ErrLost):
			e.session.lose(e, err)
		case granted:
			e.session.confirm(e)
		}
	}
}

// next takes the first that is due, or ends the worker.
func (r *renewer) next() *renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.due) > 0 {
		e := r.due[0]
		r.due = r.due[1:]
		if e.place != nil {
			return e
		}
	}
	r.due = nil
	r.workers--
	return nil
}

// done notes the result of a renewal, and reports whether the store has granted a lease by it that was held locally.
func (r *renewer) done(e *renewal, err error) (granted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.waiting = false
	if err == nil {
		granted = e.local
		e.local, e.until = false, e.asked.Add(r.ttl)
	}
	return granted
}
