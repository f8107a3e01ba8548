package gate

import (
	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// logDone logs a normal request, for who wants to see them all.
func (r *request) logDone() {
	if r.gate.log.IsDebug() {
		r.gate.log.Debug("request done", append(r.logPairs(), "status", string(r.status))...)
	}
}

// logSlowWait logs a wait that was longer than slow_wait, with the holder that was waited for.
func (r *request) logSlowWait() {
	if r.waited > r.setup.SlowWait {
		r.logLine(hclog.Info, "slow wait for a session's lock", nil)
	}
}

// logObserved logs that the request would have waited, each of a session: they are what observe is for.
func (r *request) logObserved() {
	r.gate.lines.write(hclog.Info, "would have waited", nil, r.logPairs)
}

// logEnd logs how a request ended that did not end well, once.
func (r *request) logEnd(level hclog.Level, text string, err error) {
	r.logLine(level, text, err)
}

// logLine logs a line of the request, unless there are too many of its kind.
func (r *request) logLine(level hclog.Level, text string, err error) {
	var session *sessionlock.Key
	if r.id != nil {
		session = &r.key
	}
	r.gate.lines.write(level, text, session, func() []any {
		if err == nil {
			return r.logPairs()
		}
		return append(r.logPairs(), "error", err)
	})
}

// logPairs are what a log line tells of a request, and of the holder that it waited for. A session id is in none
// of them: of the lock's name, which is a hash, there is the begin.
func (r *request) logPairs() []any {
	d := r.Describe()
	pairs := []any{"method", d.Method, "path", d.Path, "script", d.Script}
	if r.route != "" {
		pairs = append(pairs, "route", r.route)
	}
	if r.id == nil {
		return pairs
	}
	pairs = append(pairs, "lock", r.key.Short(), "wait_ms", r.waited.Milliseconds())
	return append(pairs, r.logHolder()...)
}

// logLoss logs and counts a lock that ended before its request, once.
func (r *request) logLoss(key sessionlock.Key, holder sessionlock.Description, err error) {
	pairs := []any{"lock", key.Short(), "method", holder.Method, "path", holder.Path, "script", holder.Script}
	switch lossOf(err) {
	case HoldExpired:
		r.gate.counters.expired.Add(1)
		r.gate.lines.write(hclog.Warn, "lock expired before its script ended", &key, func() []any {
			return append(pairs, "held_ms", r.policy.Expiry.Milliseconds())
		})
	case HoldBroken:
		r.gate.counters.broken.Add(1)
		r.gate.log.Warn("lock broken by an operator", pairs...)
	default:
		r.gate.counters.lost.Add(1)
		r.gate.lines.write(hclog.Warn, "lock lost", &key, func() []any { return append(pairs, "error", err) })
	}
}

// logLocal logs and counts that a lock goes on within this process: its store has failed for too long.
func (r *request) logLocal(key sessionlock.Key, holder sessionlock.Description) {
	r.gate.counters.local.Add(1)
	r.gate.counters.lost.Add(1)
	r.gate.log.Warn("lease lost while the store fails; holding the lock on this host only", "lock", key.Short(),
		"method", holder.Method, "path", holder.Path, "script", holder.Script)
}

// logHolder are what a log line tells of the one who was waited for, if anything is known of him.
func (r *request) logHolder() []any {
	if r.behind != (sessionlock.Description{}) {
		return []any{"holder", r.behind.Method + " " + r.behind.Path, "holder_script", r.behind.Script}
	}
	h := r.elsewhere.Load()
	if h == nil || r.waited == 0 || r.hold != nil && h.Token == r.hold.lock.LeaseToken() { // it was this very request
		return nil
	}
	return []any{"holder_host", h.Host, "holder_gate", h.Gate}
}
