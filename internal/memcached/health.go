package memcached

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// A server that times out soon after it was back, time and again, rests for a while: it may answer its watcher and
// nothing else.
const (
	soon     = 5 * time.Second
	cooldown = 2 * time.Second
)

// patience is how long a server has to be silent to be taken for away. Until then nothing is known: it may have been
// restarted, or hang for a moment, or this process has.
const patience = 2 * time.Second

// health is whether a server is up, as far as is known, and for how long it has been silent.
type health struct {
	timeout time.Duration // of one round trip
	onDown  func(error)   // is called when the server is marked down
	onUp    func()        // and up again

	silence atomic.Int64 // a time.Duration: how long the server has been seen not to answer, zero while it does

	mu        sync.Mutex
	down      error     // nil: up, as far as we know
	since     time.Time // when that began; zero: never seen
	silent    time.Time // when the silence began
	counted   time.Time // until when it has been counted
	returned  bool      // it was down before
	flaps     int       // in a row
	downUntil time.Time // not up before
	firm      bool      // downUntil holds whatever becomes of this process
	stalled   time.Time // when this process was last seen to have been stopped
	err       error     // the last failure
}

// downError is returned for a request that was not sent because of an earlier failure.
type downError struct{ cause error }

func (e *downError) Error() string        { return "server marked down: " + e.cause.Error() }
func (e *downError) Unwrap() error        { return e.cause }
func (e *downError) Is(target error) bool { return target == kv.ErrNotSent }

// downErr is nil while the server is up.
func (h *health) downErr() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down == nil {
		return nil
	}
	return &downError{h.down}
}

// fail marks the server down until its watcher reaches it. Failures of requests that began before the server last came
// back are ignored.
func (h *health) fail(begun time.Time, err error) {
	h.mu.Lock()
	now := time.Now()
	h.err = err
	first := h.down == nil && !begun.Before(h.since)
	if first {
		if !h.returned || now.Sub(h.since) >= soon || !kv.TimedOut(err) || now.Sub(h.stalled) < stallSpan {
			h.flaps = 0
		} else if h.flaps++; h.flaps > 1 {
			h.downUntil = now.Add(cooldown)
		}
		h.down, h.since = err, now
		if h.silence.Load() == 0 {
			h.silent = now
		}
		h.counted = now
	}
	h.mu.Unlock()
	if first {
		h.onDown(err)
	}
}

// recover marks the server up, unless it has to rest: it has answered a request that was sent then. It reports whether
// the server is up. Requests that began while it was down no longer count; but if the server was never met before,
// those that began while this answer was on its way do.
func (h *health) recover(asked time.Time) bool {
	h.mu.Lock()
	was := h.down
	if was != nil && time.Now().Before(h.downUntil) {
		h.mu.Unlock()
		return false
	}
	h.down, h.returned, h.firm = nil, h.returned || was != nil, false
	if was != nil {
		h.since = time.Now()
	} else if h.since.IsZero() {
		h.since = asked
	}
	if h.flaps < 2 { // else it has to answer something else than its watcher first
		h.silence.Store(0)
	}
	h.mu.Unlock()
	if was != nil {
		h.onUp()
	}
	return true
}

// heard ends the silence: the server has answered a request.
func (h *health) heard() {
	if h.silence.Load() != 0 {
		h.silence.Store(0)
	}
}

// staySilent counts the time in which the server has not answered. The watcher calls it after each attempt. A longer
// time than an attempt takes is not believed: this process was stopped for a while, and not the server.
func (h *health) staySilent() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down == nil {
		return
	}
	now := time.Now()
	h.silence.Add(int64(min(now.Sub(h.counted), h.timeout+maxRedial)))
	h.counted = now
}

// stallSlack is how much longer than it should something takes in a process that is not stopped, or starved.
const stallSlack = 50 * time.Millisecond

// stallSpan is how long after a stall its timeouts are expected.
const stallSpan = time.Second

// mindStall takes note if something that was begun then has taken much longer than it should: this process was stopped,
// and what has timed out meanwhile says nothing of the server.
func (h *health) mindStall(begun time.Time, should time.Duration) {
	if time.Since(begun) < should+stallSlack {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stalled = time.Now()
	if h.flaps = 0; !h.firm {
		h.downUntil = time.Time{}
	}
}

// refuse marks the server down for a while, for a reason that time does not mend: it is away at once.
func (h *health) refuse(now time.Time, err error, rest time.Duration) {
	h.fail(now, err)
	h.mu.Lock()
	h.down, h.err, h.downUntil, h.firm = err, err, now.Add(rest), true
	h.mu.Unlock()
	h.silence.Store(int64(patience))
}

// report adds what is known to a kv.State.
func (h *health) report(s *kv.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down == nil {
		return
	}
	s.Down = &downError{h.down}
	s.Away = time.Duration(h.silence.Load()) >= patience
	s.Silent = h.silent
}

// count adds what is known to the figures.
func (h *health) count(s *kv.ServerStats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Up, s.Since, s.Err = h.down == nil && !h.since.IsZero(), h.since, h.err
}
