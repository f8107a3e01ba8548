package gate

import (
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Meter measures one route's requests and their locks. Its methods are called concurrently on the request path and must
// be fast. They must not retain their arguments.
type Meter interface {
	// Waited records how long a request waited for its lock, zero if the lock was free, and what the request does next.
	// blockedBy is the holder when the wait began, zero if it was none of this process.
	Waited(outcome Outcome, waited time.Duration, blockedBy *sessionlock.Description)
	// Held records how long a script held its lock.
	Held(outcome HoldOutcome, held time.Duration, script []byte)
	// Ended records how a request ended, and how long it took.
	Ended(outcome Outcome, times *Times, script []byte)
	// Slow records that a request has taken Options.SlowRequest, which has not ended.
	Slow(script string, taken time.Duration)
}

// noMeter is the Meter of a gate without one.
type noMeter struct{}

func (noMeter) Waited(Outcome, time.Duration, *sessionlock.Description) {}
func (noMeter) Held(HoldOutcome, time.Duration, []byte)                 {}
func (noMeter) Ended(Outcome, *Times, []byte)                           {}
func (noMeter) Slow(string, time.Duration)                              {}

// routeTally counts and measures the requests of one route. It is looked up once per setup, not once per request.
type routeTally struct {
	*routeCounters
	meter Meter
}

func newTally(c *counters, route string, meter func(string) Meter) routeTally {
	t := routeTally{c.route(route), noMeter{}}
	if meter != nil {
		t.meter = meter(route)
	}
	return t
}

func (t *routeTally) count(outcome Outcome) { t.outcomes[outcome].Add(1) }
