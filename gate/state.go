package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// request is a request that is being served.
type request struct {
	*fcgi.Request
	gate   *shared
	setup  *setup // the one in force when the request came
	head   head
	id     []byte          // the session id that PHP will use; nil: none
	key    sessionlock.Key // of its lock; only with an id
	policy *Policy
	route  string
	tally  *routeTally // of the route

	clock clock
	times Times // once it has ended

	status       lockStatus
	hold         *hold        // of the session's lock; nil: none
	holds        []*hold      // with those of session ids that the response has set
	outliving    atomic.Int32 // how many of them outlive the request
	follows      bool         // the gate awaits the end of the script after the response
	setsID       bool         // the response has set another session id than the request's
	rotates      rotates
	waited       time.Duration
	blockedBy    sessionlock.Description                  // the holder when the wait began
	remoteHolder atomic.Pointer[sessionlock.RemoteHolder] // the holder in another process; nil: unknown
	exchange     fcgi.Exchange
	ending       atomic.Bool // its script is being ended by the gate
	killed       atomic.Bool // with its worker
	byOperator   atomic.Bool // an operator has asked for that

	scriptMu sync.Mutex
	script   *phpScript // as its worker shows it; nil: nothing has asked for it
	scratch  [320]byte  // of params, to keep them off the heap
}

// servedAs returns the Outcome of a request that was served.
func (r *request) servedAs() Outcome {
	switch r.status {
	case lockHeld, lockLocal:
		return OutcomeHeld
	case lockRead:
		return OutcomeRead
	case lockPassed, lockLater:
		if r.policy.Observe {
			return OutcomeObserved
		}
		return OutcomePassed
	}
	return OutcomeNone
}

// ended counts and measures the request, which has ended.
func (r *request) ended(outcome Outcome) {
	r.times = r.clock.stop()
	r.tally.count(outcome)
	r.tally.meter.Ended(outcome, &r.times, r.head.filename)
}

// Describe returns what an operator sees of the request while it holds or waits for the lock.
func (r *request) Describe() sessionlock.Description {
	return sessionlock.Description{
		Realm:  r.setup.Realm,
		Gate:   r.setup.Name,
		Route:  r.route,
		Method: string(r.head.method),
		Path:   pathOnly(r.head.target),
		Script: string(r.head.filename),
	}
}

// useScript returns the script as its worker shows it. The caller must call its leave.
func (r *request) useScript() *phpScript {
	r.scriptMu.Lock()
	defer r.scriptMu.Unlock()
	if r.script == nil || !r.script.use() {
		r.script = &phpScript{workers: r.setup.Workers, exchange: &r.exchange, uploads: r.head.upload, users: 1}
	}
	return r.script
}

// outlivingEnds is called when a hold that outlived the request has ended. After the last one, the gate no longer
// awaits the script.
func (r *request) outlivingEnds() {
	if r.outliving.Add(-1) == 0 {
		r.exchange.Unfollow()
	}
}
