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
// open it while somebody waits. A nil one is that of a lock which lasts until its script ends.
type watched struct {
	request  *request
	hold     *hold             // of the lock; nil: it is not measured
	lock     *sessionlock.Lock // set before watch is
	over     atomic.Bool       // the lock has been released
	sawClose atomic.Bool
	after    atomic.Pointer[sessionlock.Description]
	ended    sync.Once
	seen     sessionwatch.State // when the script had ended

	mu      sync.Mutex         // never taken by closed, which the watcher calls with a mutex of its own held
	watch   sessionwatch.Watch // nil before begin
	wanted  bool               // somebody waits
	stopped bool
	timer   *time.Timer // to giveAway; nil: nobody has waited yet
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

// beginOpen watches a session that PHP should have opened already.
func (w *watched) beginOpen(lock *sessionlock.Lock, id []byte) {
	if w != nil {
		w.start(lock, id, w.request.to.Watcher.WatchOpen)
	}
}

func (w *watched) start(lock *sessionlock.Lock, id []byte, watch func([]byte, func()) sessionwatch.Watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lock = lock
	w.watch = watch(id, w.closed)
	if w.wanted {
		w.hurry()
	} else if w.request.to.SharedLocks {
		w.distant = time.AfterFunc(distantPatience, w.want)
	}
}

// distantPatience is how long a lock that is shared with other hosts is held before it is taken for granted that
// somebody waits for it there: which nobody tells.
const distantPatience = 250 * time.Millisecond

// want is called, by a goroutine of the lock's, when somebody waits for it: that may be before begin, or too late.
func (w *watched) want() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch != nil && !w.stopped && !w.wanted {
		w.hurry()
	}
	w.wanted = true
}

// hurry has the end of the session told at once, and bounds the wait for its begin.
func (w *watched) hurry() {
	w.watch.Want()
	r := w.request
	if r.to.OpenWithin > 0 && w.notOpen() {
		patience := r.to.OpenWithin
		if r.gate.habits.sessionless(r) {
			patience = 0
		}
		w.timer = time.AfterFunc(patience, w.giveAway)
	}
}

// notOpen says whether PHP has not opened the session, as far as can be seen.
func (w *watched) notOpen() bool {
	s := w.watch.State()
	return s == sessionwatch.Unopened || s == sessionwatch.Unseen
}

// giveAway gives the turn of a script away that has not opened its session though it has had the time. Its time
// begins when PHP-FPM can take the request.
func (w *watched) giveAway() {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.request
	if w.stopped || !w.notOpen() {
		return
	}
	if !r.gate.habits.sessionless(r) {
		left := r.to.OpenWithin
		if since := r.exch.Connected(); !since.IsZero() {
			left -= time.Since(since)
		}
		if left > 0 {
			w.timer.Reset(left)
			return
		}
	}
	w.release(HoldGivenAway, r.head.filename)
}

// closed is called when PHP has closed the session. It must not block.
func (w *watched) closed() {
	w.sawClose.Store(true)
	if d := w.after.Load(); d != nil {
		w.release(HoldClosed, []byte(d.Script))
		go w.end() // which uses the watcher
		return
	}
	if r := w.request; r.watch == w && !w.over.Load() {
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

// outlive keeps the lock of a script that goes on with its session behind the end of its request, as it does after
// fastcgi_finish_request(). The lock ends when the session is closed then, or at its expiry.
func (w *watched) outlive() {
	if w == nil {
		return
	}
	r := w.request
	if w.seen = sessionwatch.Closed; !w.sawClose.Load() {
		w.seen = w.watch.State()
	}
	if w.seen != sessionwatch.Open || w.over.Load() || r.HungUp() {
		return
	}
	d := r.Describe()
	r.to.users.Add(1)
	r.gate.outliving.add(w)
	w.lock.HoldFor(described(d))
	w.after.Store(&d)
	w.watch.Want()
	if w.lock.Err() != nil || w.watch.State() != sessionwatch.Open { // it has ended meanwhile
		w.end()
	}
}

// outlives says whether the lock goes on without its request.
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

// learn notes whether the script of a request opened its session.
func (r *request) learn() {
	if r.watch != nil && !r.exch.Connected().IsZero() {
		r.gate.habits.learn(r, r.watch.seen)
	}
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
