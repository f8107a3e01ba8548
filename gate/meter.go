package gate

import (
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// End is how a request ended. There is one for each.
type End int

// The ends. Those of requests that were served say what became of the lock.
const (
	EndNone     End = iota // served; there was no session, or no need of its lock
	EndHeld                // served while it held the lock, as long as that lasted
	EndRead                // served, after those ahead
	EndPassed              // served without the lock that it wanted
	EndObserved            // served without the lock, as observe says

	EndRedirected     // sent back for its new cookie: its session id was replaced while it waited
	EndMaxWait        // rejected: max wait was over
	EndMaxWaiters     // rejected: max waiters waited already
	EndShutdown       // rejected: the gate is being shut down
	EndStoreFailed    // rejected: the lock store failed
	EndExpired        // ended with its lock
	EndUpstreamBusy   // no upstream connection was free
	EndUpstreamFailed // PHP-FPM did not answer
	EndHungUp         // its web server hung up
	EndAbandoned      // its script ran on for too long after that
	EndBroken         // its response was cut short
	EndFailed         // anything else
	Ends              // how many there are
)

// endNames are what operators see.
var endNames = [Ends]string{
	"none", "held", "read", "passed", "observed",
	"redirected", "max_wait", "max_waiters", "shutdown", "store_failed", "expired",
	"upstream_busy", "upstream_failed", "hung_up", "abandoned", "broken", "failed",
}

func (e End) String() string { return endNames[e] }

// HoldEnd is how the hold of a lock ended.
type HoldEnd int

// The ends of a hold.
const (
	HoldReleased HoldEnd = iota // by its request
	HoldExpired
	HoldLost      // in the store
	HoldBroken    // by an operator
	HoldClosed    // because PHP has closed the session
	HoldGivenAway // because PHP has not opened it in time
	HoldEnds      // how many there are
)

func (e HoldEnd) String() string {
	return [HoldEnds]string{"released", "expired", "lost", "broken", "closed", "given_away"}[e]
}

// holdEnd is what sessionlock.Lock.Err says.
func holdEnd(err error) HoldEnd {
	switch err {
	case nil:
		return HoldReleased
	case sessionlock.ErrExpired:
		return HoldExpired
	case sessionlock.ErrBroken:
		return HoldBroken
	}
	return HoldLost
}

// Meter measures the locks of one route's requests. Its methods are called in the way of the requests and from many
// goroutines: they must be quick. What they are given is theirs for the call only.
type Meter interface {
	// Waited is told how long a request waited for its lock, zero if nobody was in the way, and what it does now.
	// behind held the lock when the wait began; it is zero if that was nobody of this process.
	Waited(end End, waited time.Duration, behind *sessionlock.Description)
	// Held is told how long a script held its lock.
	Held(end HoldEnd, held time.Duration, script []byte)
}

// noMeter is the Meter of a gate that is given none.
type noMeter struct{}

func (noMeter) Waited(End, time.Duration, *sessionlock.Description) {}
func (noMeter) Held(HoldEnd, time.Duration, []byte)                 {}

// tally is where the requests of one route are counted and measured. It is found once a setup, not once a request.
type tally struct {
	*routeCounters
	meter Meter
}

func newTally(o *Options, c *counters, route string) tally {
	t := tally{c.route(route), noMeter{}}
	if o.Meter != nil {
		t.meter = o.Meter(route)
	}
	return t
}

func (t *tally) count(end End) { t.ends[end].Add(1) }

// servedAs is the End of a request that is served.
func (r *request) servedAs() End {
	switch r.outcome {
	case lockHeld, lockLocal:
		return EndHeld
	case lockRead:
		return EndRead
	case lockPassed:
		if r.policy.Observe {
			return EndObserved
		}
		return EndPassed
	}
	return EndNone
}

// measureWait measures the wait for the lock, which is over.
func (r *request) measureWait(end End) {
	r.tally.meter.Waited(end, r.waited, &r.behind)
}

// hold measures how long a lock is held.
type hold struct {
	watch *watched    // over the session of the lock; nil: it is not watched
	since time.Time   // set before on
	on    atomic.Bool // the lock is held, and its time has not been measured yet
}

// beginHold starts to measure the hold of the request's lock.
func (r *request) beginHold() {
	if r.policy.Mode == Exclusive {
		r.hold.since = r.lock.Since()
		r.hold.on.Store(true)
	}
}

// measure measures the hold, once: at its release, or when it ends by itself.
func (h *hold) measure(t *tally, end HoldEnd, script []byte) {
	if h.on.CompareAndSwap(true, false) {
		t.meter.Held(end, time.Since(h.since), script)
	}
}

// endHold measures the hold of the request's lock.
func (r *request) endHold(end HoldEnd, script []byte) { r.hold.measure(r.tally, end, script) }
