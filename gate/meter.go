package gate

import (
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Meter measures the locks of one route's requests. Its methods are called in the way of the requests and from many
// goroutines: they must be quick. What they are given is theirs for the call only.
type Meter interface {
	// Waited is told how long a request waited for its lock, zero if nobody was in the way, and what it does now.
	// behind held the lock when the wait began; it is zero if that was nobody of this process.
	Waited(outcome Outcome, waited time.Duration, behind *sessionlock.Description)
	// Held is told how long a script held its lock.
	Held(outcome HoldOutcome, held time.Duration, script []byte)
}

// noMeter is the Meter of a gate that is given none.
type noMeter struct{}

func (noMeter) Waited(Outcome, time.Duration, *sessionlock.Description) {}
func (noMeter) Held(HoldOutcome, time.Duration, []byte)                 {}

// tally is where the requests of one route are counted and measured. It is found once a setup, not once a request.
type tally struct {
	*routeCounters
	meter Meter
}

func newTally(c *counters, route string, meter func(string) Meter) tally {
	t := tally{c.route(route), noMeter{}}
	if meter != nil {
		t.meter = meter(route)
	}
	return t
}

func (t *tally) count(outcome Outcome) { t.outcomes[outcome].Add(1) }
