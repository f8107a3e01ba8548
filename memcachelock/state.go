package memcachelock

import "time"

// patience is how long a server has to be silent to be taken for away. Until then nothing is known: it may have been
// restarted, or hang for a moment, or this process has.
const patience = 2 * time.Second

// downErr is nil while the server is up.
func (v *server) downErr() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down == nil {
		return nil
	}
	return &downError{v.down}
}

func (v *server) isUp() bool { return v.downErr() == nil }

// fail marks the server down until its watcher reaches it. Failures of requests that began before the server last came
// back are ignored.
func (v *server) fail(begun time.Time, err error) {
	v.mu.Lock()
	now := time.Now()
	v.err = err
	first := v.down == nil && !begun.Before(v.since)
	if first {
		if !v.returned || now.Sub(v.since) >= soon || !timedOut(err) || now.Sub(v.stalled) < stallSpan {
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
		v.tell(ServerDown, err)
	}
}

// recover marks the server up, unless it has to rest: it has answered a request that was sent then. It reports whether
// the server is up. Requests that began while it was down no longer count; but if the server was never met before,
// those that began while this answer was on its way do.
func (v *server) recover(asked time.Time) bool {
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
		v.tell(ServerUp, nil)
	}
	return true
}

// heard ends the silence: the server has answered a request.
func (v *server) heard() {
	if v.silence.Load() != 0 {
		v.silence.Store(0)
	}
}

// staySilent counts the time in which the server has not answered. The watcher calls it after each attempt. A longer
// time than an attempt takes is not believed: this process was stopped for a while, and not the server.
func (v *server) staySilent() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down == nil {
		return
	}
	now := time.Now()
	v.silence.Add(int64(min(now.Sub(v.counted), v.options.timeout+maxRedial)))
	v.counted = now
}

// stallSlack is how much longer than it should something takes in a process that is not stopped, or starved.
const stallSlack = 50 * time.Millisecond

// stallSpan is how long after a stall its timeouts are expected.
const stallSpan = time.Second

// mindStall takes note if something that was begun then has taken much longer than it should: this process was stopped,
// and what has timed out meanwhile says nothing of the server.
func (v *server) mindStall(begun time.Time, should time.Duration) {
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

// isAway reports whether the server has been silent for so long that it is no hiccup.
func (v *server) isAway() bool { return time.Duration(v.silence.Load()) >= patience && !v.isUp() }

// silentSince is when the server was last known to answer, if it is down.
func (v *server) silentSince() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.silent
}
