package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// watch watches PHP open and close the session of a hold. It ends the hold when PHP has closed the session, and gives
// the turn away if PHP does not open the session while a request waits. A nil watch does nothing.
type watch struct {
	hold     *hold
	setup    *setup
	sawClose atomic.Bool
	last     sessionwatch.State // when the script ended

	mu      sync.Mutex // changed must not take it: the watcher calls changed with its own mutex held
	begun   bool
	session sessionwatch.Watch // from outside of PHP; nil: not watched so, or not yet
	view    *sessionView       // in the worker; nil: not watched so, or not yet
	wanted  bool               // a request waits
	kept    bool               // the turn can no longer be given away
	stopped bool
	timer   *time.Timer // to giveAway; nil: no request has waited yet
	distant *time.Timer // to want; nil: the lock is not shared, or want was called before
}

func newWatch(h *hold, s *setup) *watch { return &watch{hold: h, setup: s} }

// begin watches the session of id. If the response has set id, PHP should already have opened it, and may have closed
// it.
func (w *watch) begin(id []byte) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = true
	if w.setup.Workers != nil {
		w.view = w.hold.viewInWorker(id, w.closed)
	}
	if w.setup.Watcher != nil && (w.view == nil || !w.setup.Workers.cover(w.setup.Upstream.Addrs)) {
		w.beginOutside(id)
	}
	switch {
	case w.wanted:
		w.prioritize()
	case w.setup.SharedLocks:
		w.distant = time.AfterFunc(distantPatience, w.want)
	}
	if w.view != nil && !w.wanted {
		w.setup.Workers.sample(w.view.script, w.setup.Upstream.Addrs)
	}
}

// beginOutside watches the place where PHP keeps its sessions.
func (w *watch) beginOutside(id []byte) {
	if !w.hold.isNew {
		w.session = w.setup.Watcher.Watch(id, w.changed)
		return
	}
	w.session = w.setup.Watcher.WatchOpen(id, w.changed)
	if w.session.State() == sessionwatch.Closed {
		w.changed(sessionwatch.Closed)
	}
}

// distantPatience is how long a lock that is shared with other hosts is held before we assume that another host waits
// for it: hosts do not notify each other.
const distantPatience = 250 * time.Millisecond

// want is called, by a goroutine of the lock's, when a request waits for the lock, perhaps before begin or after stop.
func (w *watch) want() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun && !w.stopped && !w.wanted {
		w.prioritize()
	}
	w.wanted = true
}

// prioritize asks for prompt notice when PHP closes the session, and gives the turn away if PHP does not open it in
// time.
func (w *watch) prioritize() {
	w.prompt()
	if w.setup.OpenWithin == 0 || w.hold.isNew || w.kept {
		return
	}
	patience := w.setup.OpenWithin
	if w.hold.isSessionless() {
		patience = 0
	}
	w.timer = time.AfterFunc(patience, w.giveAway)
}

// giveAway gives the turn away if the script has not opened its session in time. Its time starts when PHP-FPM can
// accept the request.
func (w *watch) giveAway() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.kept {
		return
	}
	if w.view != nil {
		w.view.script.look()
	}
	switch w.state() {
	case sessionwatch.Unopened, sessionwatch.Shut:
		if left := w.hold.mayOpenFor(); left > 0 {
			w.timer.Reset(left)
			return
		}
		w.hold.giveAway()
	case sessionwatch.Unknown, sessionwatch.Unproven, sessionwatch.Unseen: // no evidence yet
		w.timer.Reset(max(w.setup.OpenWithin, minPatience))
	}
}

// minPatience bounds how often giveAway checks a session that PHP may not keep in the watched place.
const minPatience = 20 * time.Millisecond

// keepTurn prevents giveAway, which uses the request, from running once the request has ended.
func (w *watch) keepTurn() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = true
}

// changed is called when PHP has closed the session, when the session can no longer be seen, and when a server has
// answered that it is not open. It must not block. What the worker shows counts more.
func (w *watch) changed(s sessionwatch.State) {
	if _, ok := w.view.seen(); ok {
		return
	}
	if s == sessionwatch.Closed {
		w.closed()
		return
	}
	w.hold.unseen()
}

// closed is called when PHP has closed the session. It must not block.
func (w *watch) closed() {
	w.sawClose.Store(true)
	w.hold.closed()
}

// state is what was seen last: in the worker, if it was.
func (w *watch) state() sessionwatch.State {
	if s, ok := w.view.seen(); ok {
		return s
	}
	if w.session != nil {
		return w.session.State()
	}
	return sessionwatch.Unknown
}

// destroyed reports whether PHP has destroyed the session that it has closed.
func (w *watch) destroyed() bool {
	w.mu.Lock()
	session, view := w.session, w.view
	w.mu.Unlock()
	if _, ok := view.seen(); ok {
		return view.isDestroyed()
	}
	return session != nil && session.Destroyed()
}

// look records what was seen until the script ended.
func (w *watch) look() {
	if w == nil || w.session == nil {
		return
	}
	if _, ok := w.view.seen(); ok {
		return
	}
	if w.last = sessionwatch.Closed; !w.sawClose.Load() {
		w.last = w.session.State()
	}
}

// mayBeOpen reports whether PHP may have the session open after its response. A session that was seen open may be; so
// may one that is being polled, because the end of the response does not wait for the answer. A script
// that is seen in its worker is followed instead.
func (w *watch) mayBeOpen() bool {
	if w == nil || w.session == nil || w.sawClose.Load() {
		return false
	}
	if _, ok := w.view.seen(); ok {
		return false
	}
	switch w.session.State() {
	case sessionwatch.Open:
		return true
	case sessionwatch.Closed:
		return false
	}
	return w.session.Asks() && w.hasWaiter()
}

// needsScript reports whether the lock has to last until its script has ended, unless the worker shows meanwhile that
// PHP has closed the session: nothing shows that PHP keeps it in the place that is watched, if any is. PHP may keep it
// elsewhere, with a handler that does not lock.
func (w *watch) needsScript() bool {
	if w == nil || w.session == nil {
		return true
	}
	if _, ok := w.view.seen(); ok {
		return true
	}
	s := w.session.State()
	return s == sessionwatch.Unproven || s == sessionwatch.Unseen || s == sessionwatch.Presumed
}

// isOutside reports whether the place of the sessions is watched.
func (w *watch) isOutside() bool { return w != nil && w.session != nil }

// hasWaiter reports whether a request waits for the session. want may be called only a moment later.
func (w *watch) hasWaiter() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted || w.hold.lock.WaitedFor()
}

// prompt asks for prompt notice when PHP closes the session.
func (w *watch) prompt() {
	if w == nil {
		return
	}
	if w.session != nil {
		w.session.Prioritize()
	}
	w.view.want()
}

// otherID returns the id of a session that PHP had open in the worker instead of this one; empty: none.
func (w *watch) otherID() string {
	if w == nil || w.view == nil {
		return ""
	}
	return w.view.otherID()
}

// recordPlace records whether PHP keeps sessions in the watched place.
func (w *watch) recordPlace() {
	if w == nil || w.last == sessionwatch.Unknown || w.last == sessionwatch.Unproven {
		return
	}
	w.setup.misfits.saw(w.last != sessionwatch.Unseen && w.last != sessionwatch.Presumed)
}

// stop ends the watching. The watch does not use the request afterwards.
func (w *watch) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	for _, t := range []*time.Timer{w.timer, w.distant} {
		if t != nil {
			t.Stop()
		}
	}
	if w.session != nil {
		w.session.Stop()
	}
	if w.view != nil {
		w.view.stop()
	}
}
