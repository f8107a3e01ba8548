package memcached

import (
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// A server that times out soon after it was back, time and again, rests for a while: it may answer its watcher and
// nothing else.
const (
	soon = 5 * time.Second
	rest = 2 * time.Second
)

// patience is how long a server has to be silent to be taken for away. Until then nothing is known: it may have been
// restarted, or hang for a moment, or this process has.
const patience = 2 * time.Second

// State returns what is known of the server.
func (v *Server) State() kv.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := kv.State{GraceEnds: v.epochs.grace, Losses: v.epochs.losses, JustLost: v.epochs.justLost()}
	if v.down != nil {
		s.Down = v.named(&downError{v.down})
		s.Away = time.Duration(v.silence.Load()) >= patience
		s.Silent = v.silent
	}
	return s
}

// downErr is nil while the server is up.
func (v *Server) downErr() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down == nil {
		return nil
	}
	return &downError{v.down}
}

// fail marks the server down until its watcher reaches it. Failures of requests that began before the server last came
// back are ignored.
func (v *Server) fail(begun time.Time, err error) {
	v.mu.Lock()
	now := time.Now()
	v.err = err
	first := v.down == nil && !begun.Before(v.since)
	if first {
		if !v.returned || now.Sub(v.since) >= soon || !kv.TimedOut(err) || now.Sub(v.stalled) < stallSpan {
			v.relapses = 0
		} else if v.relapses++; v.relapses > 1 {
			v.rest = now.Add(rest)
		}
		v.down, v.since = err, now
		if v.silence.Load() == 0 {
			v.silent = now
		}
		v.counted = now
	}
	v.mu.Unlock()
	if first {
		v.closeIdle()
		if v.hooks.Down != nil {
			v.hooks.Down(err)
		}
	}
}

// recover marks the server up, unless it has to rest: it has answered a request that was sent then. It reports whether
// the server is up. Requests that began while it was down no longer count; but if the server was never met before,
// those that began while this answer was on its way do.
func (v *Server) recover(asked time.Time) bool {
	v.mu.Lock()
	was := v.down
	if was != nil && time.Now().Before(v.rest) {
		v.mu.Unlock()
		return false
	}
	v.down, v.returned = nil, v.returned || was != nil
	if was != nil {
		v.since = time.Now()
	} else if v.since.IsZero() {
		v.since = asked
	}
	if v.relapses < 2 { // else it has to answer something else than its watcher first
		v.silence.Store(0)
	}
	v.mu.Unlock()
	if was != nil {
		v.hooks.Up()
	}
	return true
}

// heard ends the silence: the server has answered a request.
func (v *Server) heard() {
	if v.silence.Load() != 0 {
		v.silence.Store(0)
	}
}

// staySilent counts the time in which the server has not answered. The watcher calls it after each attempt. A longer
// time than an attempt takes is not believed: this process was stopped for a while, and not the server.
func (v *Server) staySilent() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down == nil {
		return
	}
	now := time.Now()
	v.silence.Add(int64(min(now.Sub(v.counted), v.options.Timeout+maxRedial)))
	v.counted = now
}

// stallSlack is how much longer than it should something takes in a process that is not stopped, or starved.
const stallSlack = 50 * time.Millisecond

// stallSpan is how long after a stall its timeouts are expected.
const stallSpan = time.Second

// mindStall takes note if something that was begun then has taken much longer than it should: this process was stopped,
// and what has timed out meanwhile says nothing of the server.
func (v *Server) mindStall(begun time.Time, should time.Duration) {
	if time.Since(begun) < should+stallSlack {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stalled = time.Now()
	if v.relapses = 0; v.down != errSplit {
		v.rest = time.Time{}
	}
}
