package gate

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// watched is a lock whose session is watched. It ends when PHP has closed the session, and is given away if PHP does not
// open it while a request waits. A nil one is that of a lock which lasts until its script ends.
type watched struct {
	request  *request
	hold     *hold             // of the lock; nil: it is not measured
	isNew    bool              // the lock is that of a session id which the response has set
	lock     *sessionlock.Lock // set before watch is
	over     atomic.Bool       // the lock has been released
	sawClose atomic.Bool
	after    atomic.Pointer[sessionlock.Description]
	ended    sync.Once
	seen     sessionwatch.State // when the script had ended

	mu      sync.Mutex         // never taken by changed, which the watcher calls with a mutex of its own held
	watch   sessionwatch.Watch // nil before begin
	wanted  bool               // a request waits
	stopped bool
	timer   *time.Timer // to giveAway; nil: no request has waited yet
	distant *time.Timer // to want; nil: locks are this process's own
}

// watched prepares the watch over a lock that is going to be acquired with p. It is nil where there is nothing to watch.
func (r *request) watched(p *sessionlock.Policy, h *hold) *watched {
	if r.to.Watcher == nil || p.Mode == sessionlock.Read {
		return nil
	}
	w := &watched{request: r, hold: h}
	p.OnWaiter = w.want
	return w
}

// begin watches the session of lock: before the request is sent, so that nothing is missed.
func (w *watched) begin(lock *sessionlock.Lock, id []byte) {
	if w != nil {
		w.start(lock, id, w.request.to.Watcher.Watch)
	}
}

// beginOpen watches a session of a new id, which PHP should have opened already: and may have closed.
func (w *watched) beginOpen(lock *sessionlock.Lock, id []byte) {
	if w == nil {
		return
	}
	w.isNew = true
	w.start(lock, id, w.request.to.Watcher.WatchOpen)
	if w.watch.State() == sessionwatch.Closed {
		w.changed(sessionwatch.Closed)
	}
}

func (w *watched) start(lock *sessionlock.Lock, id []byte, watch func([]byte, func(sessionwatch.State)) sessionwatch.Watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lock = lock
	w.watch = watch(id, w.changed)
	if w.wanted {
		w.hurry()
	} else if w.request.to.SharedLocks {
		w.distant = time.AfterFunc(distantPatience, w.want)
	}
}

// distantPatience is how long a lock that is shared with other hosts is held before we assume that another host waits
// for it: hosts do not notify each other.
const distantPatience = 250 * time.Millisecond

// want is called, by a goroutine of the lock's, when a request waits for it: that may be before begin, or too late.
func (w *watched) want() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch != nil && !w.stopped && !w.wanted {
		w.hurry()
	}
	w.wanted = true
}

// hurry asks for prompt notice when PHP closes the session, and gives the turn away if PHP does not open it in time.
func (w *watched) hurry() {
	w.watch.Want()
	r := w.request
	if r.to.OpenWithin == 0 || w.isNew {
		return
	}
	patience := r.to.OpenWithin
	if r.gate.habits.sessionless(r) {
		patience = 0
	}
	w.timer = time.AfterFunc(patience, w.giveAway)
}

// giveAway gives the turn of a script away that has not opened its session though it has had the time. Its time
// begins when PHP-FPM can take the request.
func (w *watched) giveAway() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	switch w.watch.State() {
	case sessionwatch.Unopened, sessionwatch.Shut:
		if left := w.openWithin(); left > 0 {
			w.timer.Reset(left)
			return
		}
		w.release(HoldGivenAway, w.request.head.filename)
	case sessionwatch.Unknown, sessionwatch.Unproven, sessionwatch.Unseen: // which proves nothing yet
		w.timer.Reset(max(w.request.to.OpenWithin, minPatience))
	}
}

// minPatience bounds how often a session is looked at of which it is not known whether PHP keeps it in this place.
const minPatience = 20 * time.Millisecond

// openWithin is how long the script may still take to open its session.
func (w *watched) openWithin() time.Duration {
	r := w.request
	if r.gate.habits.sessionless(r) {
		return 0
	}
	left := r.to.OpenWithin
	if since := r.exch.Connected(); !since.IsZero() {
		left -= time.Since(since)
	}
	return left
}

// changed is called when PHP has closed the session, when that can no longer be seen, and with an answer that it does
// not have it open. It must not block.
func (w *watched) changed(s sessionwatch.State) {
	switch {
	case s == sessionwatch.Closed:
		w.closed()
	case w.outlives(): // nothing else would end it before its expiry
		go w.end()
	}
}

func (w *watched) closed() {
	w.sawClose.Store(true)
	if d := w.after.Load(); d != nil {
		w.release(HoldClosed, []byte(d.Script))
		go w.end() // which uses the watcher
		return
	}
	if r := w.request; w.hold != nil && !w.over.Load() {
		r.gate.rotations.sawClose(r, w.destroyed)
	}
	w.release(HoldClosed, w.request.head.filename)
}

// destroyed reports whether PHP has destroyed the session that it has closed.
func (w *watched) destroyed() bool {
	w.mu.Lock()
	watch := w.watch
	w.mu.Unlock()
	return watch != nil && watch.Destroyed()
}

// release releases the lock, if that has not been done.
func (w *watched) release(end HoldEnd, script []byte) {
	if w.over.Swap(true) {
		return
	}
	if end == HoldGivenAway {
		w.request.gate.counters.givenAway.Add(1)
	}
	w.lock.Release()
	if w.hold != nil {
		w.hold.measure(w.request.tally, end, script)
	}
}

// outlive keeps the lock of a script that goes on with its session after the end of its request, as it does after
// fastcgi_finish_request(). The lock ends when the session is closed then, when that can no longer be seen, or at its
// expiry.
func (w *watched) outlive() {
	if w == nil {
		return
	}
	r := w.request
	if w.seen = sessionwatch.Closed; !w.sawClose.Load() {
		w.seen = w.watch.State()
	}
	if !w.mayBeOpen() || w.over.Load() || r.HungUp() {
		return
	}
	d := r.Describe()
	r.to.users.Add(1)
	r.gate.outliving.add(w)
	w.lock.HoldFor(described(d))
	w.after.Store(&d)
	w.watch.Want()
	if w.lock.Err() != nil || !w.mayBeOpen() { // it has ended meanwhile
		w.end()
	}
}

// mayBeOpen reports whether PHP may have the session open, once its response has ended: it was seen to, or a server is
// asked, whose answer the last bytes of the response do not wait for.
func (w *watched) mayBeOpen() bool {
	if w.sawClose.Load() {
		return false
	}
	switch w.watch.State() {
	case sessionwatch.Open:
		return true
	case sessionwatch.Closed:
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted && w.watch.Asks()
}

// seesNothing reports whether the session was not seen, and nothing shows that PHP keeps it in the place that is watched.
func (w *watched) seesNothing() bool {
	if w == nil || w.over.Load() {
		return false
	}
	s := w.watch.State()
	return s == sessionwatch.Unproven || s == sessionwatch.Unseen || s == sessionwatch.Presumed
}

// outlives reports whether the lock goes on without its request.
func (w *watched) outlives() bool { return w != nil && w.after.Load() != nil }

// closedEarly reports whether PHP closed the session before it got the request: that was another script's.
func (w *watched) closedEarly() bool { return w != nil && w.sawClose.Load() }

// setOver says that the request releases the lock itself.
func (w *watched) setOver() {
	if w != nil {
		w.over.Store(true)
	}
}

// described holds a lock for a request that is over.
type described sessionlock.Description

func (d described) Describe() sessionlock.Description { return sessionlock.Description(d) }

// end ends the lock of a request that is over, once.
func (w *watched) end() {
	w.ended.Do(func() {
		w.release(HoldReleased, []byte(w.after.Load().Script))
		w.stop()
		w.request.gate.outliving.remove(w)
		w.request.to.leave()
	})
}

// lost is called when the lock has ended by itself.
func (w *watched) lost() {
	if w.outlives() {
		w.end()
	}
}

// stop ends the watching. The request may be gone after that.
func (w *watched) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	for _, t := range []*time.Timer{w.timer, w.distant} {
		if t != nil {
			t.Stop()
		}
	}
	if w.watch != nil {
		w.watch.Stop()
	}
}

// unwatch ends the watching of a request that is over, unless the lock goes on.
func (w *watched) unwatch() {
	if w != nil && !w.outlives() {
		w.stop()
	}
}

// learn notes whether the script of a request opened its session, and that of an id which it has set. With another id
// it says nothing of the one that the request came with: in strict mode PHP opens no session of an id that it does not
// know, and a visitor can send any.
func (r *request) learn() {
	if r.exch.Connected().IsZero() {
		return
	}
	for _, f := range r.more {
		f.watch.judge()
	}
	if r.watch != nil && !r.setsID {
		r.watch.judge()
		r.gate.habits.learn(r, r.watch.seen)
	}
}

// judge notes whether PHP keeps sessions in the place that is watched.
func (w *watched) judge() {
	if w == nil || w.seen == sessionwatch.Unknown || w.seen == sessionwatch.Unproven {
		return
	}
	w.request.to.misfits.saw(w.seen != sessionwatch.Unseen && w.seen != sessionwatch.Presumed)
}

// outliving are the locks that go on without their requests.
type outliving struct {
	mu  sync.Mutex
	all map[outliver]struct{}
}

// outliver has locks that go on without their request. end ends them.
type outliver interface{ end() }

func (o *outliving) add(w outliver) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[outliver]struct{})
	}
	o.all[w] = struct{}{}
}

func (o *outliving) remove(w outliver) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, w)
}

// end ends them all: the gate is not going to hand them on.
func (o *outliving) end() {
	o.mu.Lock()
	all := slices.Collect(maps.Keys(o.all))
	o.mu.Unlock()
	for _, w := range all {
		w.end()
	}
}
