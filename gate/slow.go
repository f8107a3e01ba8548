package gate

import (
	"errors"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// watchTime has the request reported once it has taken slow_request, while it still runs: only then can be seen what
// its script waits for, and one that never ends is reported too.
func (r *request) watchTime() {
	if limit := r.setup.SlowRequest; limit > 0 {
		r.clock.alarmAt(limit, r.reportSlow)
	}
}

// slowRequest is a request that has taken slow_request, as it was at that moment.
type slowRequest struct {
	sessionlock.Description
	stage stage
	times Times
}

// reportSlow counts and logs a request that has taken slow_request, unless its time has gone into its body.
func (r *request) reportSlow() {
	var s slowRequest
	if !r.clock.look(r.setup.SlowRequest, func(at stage, t Times) {
		s.Description, s.stage, s.times = r.Describe(), at, t
	}) {
		return
	}
	r.tally.slow.Add(1)
	r.tally.meter.Slow(s.Script, s.times.Total())
	r.gate.slow.write(hclog.Info, "slow request", s.Method+s.Path, func() []any { return r.slowPairs(&s) })
}

// slowPairs are the pairs of the line: they include what the request waits for.
func (r *request) slowPairs(s *slowRequest) []any {
	pairs := append(r.requestPairs(s.Description),
		"wait_ms", s.times.Session.Milliseconds(), "queue_ms", s.times.Connection.Milliseconds(),
		"php_ms", s.times.PHP.Milliseconds(), "stage", s.stage.String())
	switch s.stage {
	case stageSession:
		if by := r.setup.Locks.Holder(r.key); by != nil {
			h := by.Describe()
			pairs = append(pairs, "holder", h.Method+" "+h.Path, "holder_script", h.Script)
		}
	case stagePHP:
		pairs = append(pairs, r.workerPairs()...)
	}
	return pairs
}

// workerPairs are what the request's worker does. There are none where workers are not looked at, or cannot be: then
// the log and /readyz have the reason already.
func (r *request) workerPairs() []any {
	a, err := r.activity()
	switch {
	case errors.Is(err, phpworker.ErrWaiting):
		return []any{"worker", "none has accepted it yet"}
	case err != nil:
		return nil
	}
	pairs := []any{"worker", a.PID, "state", a.State}
	if a.Syscall != "" {
		pairs = append(pairs, "syscall", a.Syscall)
	}
	if a.Target != "" {
		pairs = append(pairs, "target", a.Target)
	}
	return pairs
}
