package gate

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// alarm has slow requests reported while they still run: only then can be seen what a script waits for, and one that
// never ends is reported too. It is for the requests that one goroutine serves, one after the other. Its timer is not
// stopped when a request ends: that would cost each request more than the few times that it goes off for nothing.
type alarm struct {
	mu      sync.Mutex
	request *request      // that is served; nil: none
	limit   time.Duration // for which the timer was set; zero: it is not set
	timer   *time.Timer
}

// minAlarm keeps a request whose body never comes from being looked at again and again.
const minAlarm = 10 * time.Millisecond

// watch has r reported once it has taken slow_request.
func (a *alarm) watch(r *request) {
	limit := r.setup.SlowRequest
	if limit == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.request = r
	if a.limit == 0 || limit < a.limit { // after a reload
		a.limit = limit
		a.set(limit)
	}
}

func (a *alarm) set(d time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(d, a.ring)
		return
	}
	a.timer.Reset(d)
}

// leave ends the watching of a request, which has ended.
func (a *alarm) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.request = nil
}

// served returns the request that is served now. If there is none, the next one sets the timer.
func (a *alarm) served() *request {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.request == nil {
		a.limit = 0
	}
	return a.request
}

// ring looks at the request that is served now, which may have come long after the timer was set.
func (a *alarm) ring() {
	r := a.served()
	if r == nil {
		return
	}
	left := reportIfSlow(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.request == nil || a.request == r && left == 0 {
		a.limit = 0
		return
	}
	a.set(max(left, minAlarm))
}

// slowRequest is a request that has taken slow_request, as it was at that moment.
type slowRequest struct {
	request *request
	sessionlock.Description
	stage stage
	times Times
}

// reportIfSlow counts and logs r if it has taken slow_request. Otherwise, as when its time has gone into its
// body, it returns how long the request has left until then.
func reportIfSlow(r *request) (left time.Duration) {
	var s *slowRequest
	left = r.clock.look(r.setup.SlowRequest, func(at stage, t Times) {
		s = &slowRequest{r, r.Describe(), at, t}
	})
	if s == nil {
		return left
	}
	r.tally.slow.Add(1)
	r.tally.meter.Slow(s.Script, s.times.Total())
	r.gate.slow.write(hclog.Info, "slow request", s.Method+s.Path, s.pairs)
	return 0
}

// pairs are the pairs of the line: they include what the request waits for.
func (s *slowRequest) pairs() []any {
	r := s.request
	pairs := append(r.requestPairs(s.Description),
		"wait_ms", s.times.Session.Milliseconds(), "queue_ms", s.times.Connection.Milliseconds(),
		"php_ms", s.times.PHP.Milliseconds(), "stage", s.stage.String())
	switch s.stage {
	case stageSession:
		if h, held := r.setup.Locks.DescribeHolder(r.key); held {
			pairs = append(pairs, "holder", h.Method+" "+h.Path, "holder_script", h.Script)
		}
	case stagePHP:
		pairs = append(pairs, s.workerPairs()...)
	}
	return pairs
}

// workerPairs are what the request's worker does. There are none where workers are not looked at, or cannot be: then
// the log and /readyz have the reason already.
func (s *slowRequest) workerPairs() []any {
	a, err := s.request.setup.Workers.activity(&s.request.exchange)
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
