package gate

import (
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// logDone logs a normal request, at level debug.
func (r *request) logDone() {
	if r.gate.log.IsDebug() {
		r.gate.log.Debug("request done", append(r.logPairs(), "status", string(r.status))...)
	}
}

// logSlowWait logs a wait longer than slow_wait, with the holder that the request waited for.
func (r *request) logSlowWait() {
	if r.waited > r.setup.SlowWait {
		r.logLine(hclog.Info, "slow wait for a session's lock", nil)
	}
}

// logObserved logs that the request would have waited. It does so for every request of a session: observe is for that.
func (r *request) logObserved() {
	r.gate.lines.write(hclog.Info, "would have waited", nil, r.logPairs)
}

// hintLostPost logs, at most once a minute, a POST that has not reached PHP because its web server hung up before the
// gate had all of it, or aborted it while it waited. PHP-FPM alone would have run it.
func (r *request) hintLostPost() {
	if string(r.head.method) != http.MethodPost || !r.exchange.Connected().IsZero() {
		return
	}
	now, last := time.Now().UnixNano(), r.gate.lostPost.Load()
	if last != 0 && now-last < int64(time.Minute) || !r.gate.lostPost.CompareAndSwap(last, now) {
		return
	}
	r.gate.log.Info("a POST was dropped while it waited: its client left before all of it had come, or the web server"+
		" aborted it; fastcgi_ignore_client_abort on makes nginx stay", r.logPairs()...)
}

// logLine logs a line about the request, unless there are too many with its text.
func (r *request) logLine(level hclog.Level, text string, err error) {
	var subject any
	if r.id != nil {
		subject = r.key
	}
	r.gate.lines.write(level, text, subject, func() []any {
		if err == nil {
			return r.logPairs()
		}
		return append(r.logPairs(), "error", err)
	})
}

// logPairs returns the pairs that describe a request and the holder that it waited for. They never contain the session
// id, only a prefix of the lock's key, which is a hash.
func (r *request) logPairs() []any {
	pairs := r.requestPairs(r.Describe())
	if r.id != nil {
		pairs = append(pairs, "wait_ms", r.waited.Milliseconds())
	}
	if r.times.Queued {
		pairs = append(pairs, "queue_ms", r.times.Connection.Milliseconds())
	}
	if r.times.Sent {
		pairs = append(pairs, "php_ms", r.times.PHP.Milliseconds())
	}
	if r.id == nil {
		return pairs
	}
	return append(pairs, r.logHolder()...)
}

// requestPairs are those that describe the request alone.
func (r *request) requestPairs(d sessionlock.Description) []any {
	pairs := []any{"method", d.Method, "path", d.Path, "script", d.Script}
	if d.Route != "" {
		pairs = append(pairs, "route", d.Route)
	}
	if r.id != nil {
		pairs = append(pairs, "key", r.key.Short())
	}
	return pairs
}

// logLoss logs and counts a lock that ended before its request.
func (h *hold) logLoss(holder sessionlock.Description, err error) {
	r, key, pairs := h.request, h.key, h.logPairs(holder)
	switch lossOf(err) {
	case HoldExpired:
		r.gate.counters.expired.Add(1)
		r.gate.lines.write(hclog.Warn, "lock expired before its script ended", key, func() []any {
			return append(pairs, "held_ms", r.policy.Expiry.Milliseconds())
		})
	case HoldBroken:
		r.gate.counters.locksBroken.Add(1)
		r.gate.log.Warn("lock broken by an operator", pairs...)
	default:
		r.gate.counters.lost.Add(1)
		r.gate.lines.write(hclog.Warn, "lock lost", key, func() []any { return append(pairs, "error", err) })
	}
}

// logLocal logs and counts a lock that continues within this process, because its store has failed for too long.
func (h *hold) logLocal(holder sessionlock.Description) {
	r := h.request
	r.gate.counters.local.Add(1)
	r.gate.counters.lost.Add(1)
	r.gate.log.Warn("lease lost while the store fails; holding the lock on this host only", h.logPairs(holder)...)
}

// logHolder returns the pairs that describe the holder that the request waited for, if it is known.
func (r *request) logHolder() []any {
	if r.blockedBy != (sessionlock.Description{}) {
		return []any{"holder", r.blockedBy.Method + " " + r.blockedBy.Path, "holder_script", r.blockedBy.Script}
	}
	h := r.remoteHolder.Load()
	if h == nil || r.waited == 0 || r.hold != nil && h.Token == r.hold.lock.LeaseToken() { // the request itself
		return nil
	}
	return []any{"holder_host", h.Host, "holder_gate", h.Gate}
}

// logReopened logs that a script has opened its session again, which it had closed: the lock was free by then.
func (h *hold) logReopened() {
	h.request.gate.lines.write(hclog.Warn, "script opened its session again after closing it, and holds no lock now; "+
		"where PHP does not lock, its next requests keep their lock until they end; release_on = \"end\" in a route "+
		"for it makes that certain", h.key, func() []any {
		return h.logPairs(h.describe())
	})
}

// logOtherSession logs that PHP had another session open than the one whose lock was held.
func (r *request) logOtherSession() {
	r.logLine(hclog.Warn, "script uses another session than its lock's; see where the session id comes from "+
		"(cookies, query, param in the session block)", nil)
}

// logTerminated logs that the gate has ended a script, and by what.
func (h *hold) logTerminated(after, by string) {
	text := "script terminated, it kept its lock for too long"
	if after == byOperator {
		text = "script terminated by an operator"
	}
	h.request.gate.lines.write(hclog.Warn, text, h.key, func() []any {
		return append(h.logPairs(h.describe()), "after", after, "by", by)
	})
}

// logPowerless logs and counts that the gate lacks what it takes to end a script, which goes on without its lock.
func (h *hold) logPowerless(after string, err error) {
	h.request.gate.counters.expired.Add(1)
	text := "script cannot be terminated, it goes on without its lock"
	h.request.gate.lines.write(hclog.Warn, text, h.key, func() []any {
		return append(h.logPairs(h.describe()), "after", after, "error", err)
	})
}

// logNotTerminated logs and counts that a script could not be ended. Its lock is free all the same.
func (h *hold) logNotTerminated(after string, err error) {
	h.request.gate.counters.expired.Add(1)
	h.request.gate.lines.write(hclog.Error, "script cannot be terminated, its lock is released", h.key, func() []any {
		return append(h.logPairs(h.describe()), "after", after, "error", err)
	})
}

// logPairs are what a log line has of the holder, whose request may be over.
func (h *hold) logPairs(holder sessionlock.Description) []any {
	return []any{"key", h.key.Short(), "method", holder.Method, "path", holder.Path, "script", holder.Script}
}

// byOperator is the reason of a termination that an operator asked for.
const byOperator = "an operator's request"
