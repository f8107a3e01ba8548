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

	mu      sync.Mutex         // changed must not take it: the watcher calls changed with its own mutex held
	session sessionwatch.Watch // nil before begin
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

// want is called, by a goroutine of the lock's, when a request waits for the lock, perhaps before begin or after stop.
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

// giveAway gives the turn away if the script has not opened its session in time. Its time starts when PHP-FPM can
// accept the request.
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
// answered that it is not open. It must not block.
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

// look records what was seen until the script ended.
func (w *watch) look() {
	if w == nil {
		return
	}
	if w.last = sessionwatch.Closed; !w.sawClose.Load() {
		w.last = w.session.State()
	}
}

// mayBeOpen reports whether PHP may have the session open after its response. A session that was seen open may be; so
// may one that is being polled, because the end of the response does not wait for the answer.
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

// seesNothing reports whether there is no evidence that PHP keeps the session in the watched place. PHP may keep it
// elsewhere with a handler that does not lock, and then no watch can see when it is closed.
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

// judge records whether PHP keeps sessions in the watched place.
func (w *watch) judge() {
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
}
