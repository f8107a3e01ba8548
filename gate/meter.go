package gate

import (
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

// HoldOutcome is how the hold of a lock ended.
type HoldOutcome int

// The ends of a hold.
const (
	HoldReleased HoldOutcome = iota // by its request
	HoldExpired
	HoldLost      // in the store
	HoldBroken    // by an operator
	HoldClosed    // because PHP has closed the session
	HoldGivenAway // because PHP has not opened it in time
	HoldOutcomes  // how many there are
)

func (o HoldOutcome) String() string {
	return [HoldOutcomes]string{"released", "expired", "lost", "broken", "closed", "given_away"}[o]
}

// isLoss reports whether the lock ended by itself, before its request or its session did.
func (o HoldOutcome) isLoss() bool { return o == HoldExpired || o == HoldLost || o == HoldBroken }

// lossOf returns the outcome of a lock that has ended by itself with that error of sessionlock.Lock.Err.
func lossOf(err error) HoldOutcome {
	switch err {
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
	Held(outcome HoldOutcome, held time.Duration, script []byte)
}

// noMeter is the Meter of a gate that is given none.
type noMeter struct{}

func (noMeter) Waited(End, time.Duration, *sessionlock.Description) {}
func (noMeter) Held(HoldOutcome, time.Duration, []byte)             {}

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
	switch r.status {
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
