package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// watch sees PHP open and close the session of a hold, which ends when PHP has closed it, and which gives its turn away
// if PHP does not open it while a request waits. A nil one sees nothing, and does nothing.
type watch struct {
	hold     *hold
	setup    *setup
	sawClose atomic.Bool
	last     sessionwatch.State // when the script had ended

	mu      sync.Mutex         // never taken by changed, which the watcher calls with a mutex of its own held
	session sessionwatch.Watch // nil before begin
	wanted  bool               // a request waits
	kept    bool               // the turn is no longer given away
	stopped bool
	timer   *time.Timer // to giveAway; nil: no request has waited yet
	distant *time.Timer // to want; nil: locks are this process's own
}

func newWatch(h *hold, s *setup) *watch { return &watch{hold: h, setup: s} }

// begin watches the session of id. That of a new id PHP should have opened already: and may have closed.
func (w *watch) begin(id []byte) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	start := w.setup.Watcher.Watch
	if w.hold.isNew {
		start = w.setup.Watcher.WatchOpen
	}
	w.session = start(id, w.changed)
	if w.wanted {
		w.hurry()
	} else if w.setup.SharedLocks {
		w.distant = time.AfterFunc(distantPatience, w.want)
	}
	if w.hold.isNew && w.session.State() == sessionwatch.Closed {
		w.changed(sessionwatch.Closed)
	}
}

// distantPatience is how long a lock that is shared with other hosts is held before we assume that another host waits
// for it: hosts do not notify each other.
const distantPatience = 250 * time.Millisecond

// want is called, by a goroutine of the lock's, when a request waits for it: that may be before begin, or too late.
func (w *watch) want() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.session != nil && !w.stopped && !w.wanted {
		w.hurry()
	}
	w.wanted = true
}

// hurry asks for prompt notice when PHP closes the session, and gives the turn away if PHP does not open it in time.
func (w *watch) hurry() {
	w.session.Want()
	if w.setup.OpenWithin == 0 || w.hold.isNew || w.kept {
		return
	}
	patience := w.setup.OpenWithin
	if w.hold.isSessionless() {
		patience = 0
	}
	w.timer = time.AfterFunc(patience, w.giveAway)
}

// giveAway gives the turn of a script away that has not opened its session though it has had the time. Its time
// begins when PHP-FPM can take the request.
func (w *watch) giveAway() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.kept {
		return
	}
	switch w.session.State() {
	case sessionwatch.Unopened, sessionwatch.Shut:
		if left := w.hold.mayOpenFor(); left > 0 {
			w.timer.Reset(left)
			return
		}
		w.hold.giveAway()
	case sessionwatch.Unknown, sessionwatch.Unproven, sessionwatch.Unseen: // which proves nothing yet
		w.timer.Reset(max(w.setup.OpenWithin, minPatience))
	}
}

// minPatience bounds how often a session is looked at of which it is not known whether PHP keeps it in this place.
const minPatience = 20 * time.Millisecond

// keepTurn ends the giving away: giveAway reads what is the request's, which is about to end.
func (w *watch) keepTurn() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = true
}

// changed is called when PHP has closed the session, when that can no longer be seen, and with an answer that it does
// not have it open. It must not block.
func (w *watch) changed(s sessionwatch.State) {
	if s == sessionwatch.Closed {
		w.sawClose.Store(true)
		w.hold.closed()
		return
	}
	w.hold.unseen()
}

// destroyed reports whether PHP has destroyed the session that it has closed.
func (w *watch) destroyed() bool {
	w.mu.Lock()
	session := w.session
	w.mu.Unlock()
	return session != nil && session.Destroyed()
}

// look notes what was seen until the script has ended.
func (w *watch) look() {
	if w == nil {
		return
	}
	if w.last = sessionwatch.Closed; !w.sawClose.Load() {
		w.last = w.session.State()
	}
}

// mayBeOpen reports whether PHP may have the session open, once its response has ended: it was seen to, or a server is
// asked, whose answer the last bytes of the response do not wait for.
func (w *watch) mayBeOpen() bool {
	if w == nil || w.sawClose.Load() {
		return false
	}
	switch w.session.State() {
	case sessionwatch.Open:
		return true
	case sessionwatch.Closed:
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted && w.session.Asks()
}

// seesNothing reports whether the session was not seen, and nothing shows that PHP keeps it in the place that is watched:
// PHP may keep it elsewhere, with a handler that does not lock, and no watch knows then when it is closed.
func (w *watch) seesNothing() bool {
	if w == nil {
		return true
	}
	s := w.session.State()
	return s == sessionwatch.Unproven || s == sessionwatch.Unseen || s == sessionwatch.Presumed
}

// prompt asks for prompt notice when PHP closes the session.
func (w *watch) prompt() {
	if w != nil {
		w.session.Want()
	}
}

// judge notes whether PHP keeps sessions in the place that is watched.
func (w *watch) judge() {
	if w == nil || w.last == sessionwatch.Unknown || w.last == sessionwatch.Unproven {
		return
	}
	w.setup.misfits.saw(w.last != sessionwatch.Unseen && w.last != sessionwatch.Presumed)
}

// stop ends the watching. The request may be gone after that.
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
}
