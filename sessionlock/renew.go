package sessionlock

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// renewer renews a manager's leases every TTL/3. One timer serves all leases, which are in a list in the order of their
// next renewals. All have the same TTL, so a new lease usually goes to the end of the list. Worker goroutines talk to
// the store, so that a server that does not answer delays neither the leases on other servers nor the timer. A lease
// that could not be renewed for a TTL is lost, even if the store answers later.
type renewer struct {
	ttl time.Duration // zero: leases need no renewal

	mu      sync.Mutex
	order   list.List // of *renewal, by at
	timer   *time.Timer
	due     []*renewal // waiting for a worker, in order
	workers int
}

// maxWorkers bounds how many leases are renewed concurrently. A store can combine them into fewer requests.
const maxWorkers = 256

// renewal is a lease in the renewer. The renewer's mutex guards it.
type renewal struct {
	session *session
	lease   Lease
	place   *list.Element // in order; nil if it is no longer to be renewed
	at      time.Time     // when it is next due
	asked   time.Time     // the start of the renewal in progress
	until   time.Time     // the lease lives at least until then
	waiting bool          // for a worker, or for the store
	local   bool          // the store has not granted the lease yet; until has no meaning
}

// everyLocal is the time between attempts to get a lease granted that is held locally.
const everyLocal = time.Second

// now returns the time from which the TTL of a new lease counts, which must be before the request to the store.
func (r *renewer) now() (t time.Time) {
	if r.ttl > 0 {
		t = time.Now()
	}
	return t
}

// isOver reports whether a lease that was requested at start may have ended: its answer took longer than a TTL, or this
// process was stopped meanwhile.
func (r *renewer) isOver(start time.Time) bool { return r.ttl > 0 && time.Since(start) >= r.ttl }

// every returns the time between renewals of a lease. It is rounded up, so that three of them are at least a TTL.
func (r *renewer) every() time.Duration { return (r.ttl + 2) / 3 }

// add adds a lease that was requested at start. It returns nil if leases need no renewal.
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

// addLocal adds a lease that the store has not granted. It is renewed until the store grants it.
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

// keep continues to renew e, which was not renewed in time, as a lease that is held locally.
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

// insert sets the next time of e, which is every() after from or the end of its TTL if that is sooner, and lists it.
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

// setTimer sets the timer to the time of the first lease.
func (r *renewer) setTimer() {
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	if first := r.order.Front(); first != nil {
		r.timer = time.AfterFunc(time.Until(first.Value.(*renewal).at), r.tick)
	}
}

// remove ends the renewals of e. The result of one in progress is ignored.
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

// tick hands due leases to the workers, ends those that are lost, and sets the timer for the next lease.
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

// enqueue hands e to the workers unless its last renewal is still in progress.
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

// work renews due leases until there are none.
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

// next returns the first due lease, or nil to end the worker.
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

// done records the result of a renewal, and reports whether the store has now granted a lease that was held locally.
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
