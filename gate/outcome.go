package gate

import "github.com/fpm-gate/fpm-gate/sessionlock"

// Outcome is how a request ended. Each request has exactly one.
type Outcome int

// The outcomes. Those of served requests describe the lock.
const (
	OutcomeNone     Outcome = iota // served; it had no session, or needed no lock
	OutcomeHeld                    // served with the lock, even if that ended early
	OutcomeRead                    // served after the requests ahead
	OutcomePassed                  // served without the lock that it needed
	OutcomeObserved                // served without the lock, because of observe

	OutcomeRedirected     // sent back for its new cookie: its session id was replaced while it waited
	OutcomeMaxWait        // rejected: max_wait exceeded
	OutcomeMaxWaiters     // rejected: max_waiters reached
	OutcomeShutdown       // rejected: the gate is shutting down
	OutcomeStoreFailed    // rejected: the lock store failed
	OutcomeExpired        // ended with its lock, and its script was left to itself
	OutcomeTerminated     // the gate has ended its script, with the worker or for an operator
	OutcomeUpstreamBusy   // no upstream connection was free
	OutcomeUpstreamFailed // PHP-FPM did not answer
	OutcomeHungUp         // its web server hung up
	OutcomeAbandoned      // its web server hung up, and its script ran for too long after that
	OutcomeBroken         // its response was cut short
	OutcomeFailed         // anything else
	Outcomes              // how many there are
)

// outcomeNames are the names that operators see.
var outcomeNames = [Outcomes]string{
	"none", "held", "read", "passed", "observed",
	"redirected", "max_wait", "max_waiters", "shutdown", "store_failed", "expired", "terminated",
	"upstream_busy", "upstream_failed", "hung_up", "abandoned", "broken", "failed",
}

func (o Outcome) String() string { return outcomeNames[o] }

// HoldOutcome is how the hold of a lock ended.
type HoldOutcome int

// The outcomes of a hold.
const (
	HoldReleased HoldOutcome = iota // by its request
	HoldExpired
	HoldLost       // in the store
	HoldBroken     // by an operator
	HoldClosed     // because PHP closed the session
	HoldTerminated // because the gate ended its script
	HoldGivenAway  // because PHP did not open the session in time
	HoldOutcomes   // how many there are
)

func (o HoldOutcome) String() string {
	return [HoldOutcomes]string{"released", "expired", "lost", "broken", "closed", "terminated", "given_away"}[o]
}

// isLoss reports whether the lock ended by itself, before its request or its session did.
func (o HoldOutcome) isLoss() bool { return o == HoldExpired || o == HoldLost || o == HoldBroken }

// lossOf returns the outcome for an error of sessionlock.Lock.Err.
func lossOf(err error) HoldOutcome {
	switch err {
	case sessionlock.ErrExpired:
		return HoldExpired
	case sessionlock.ErrBroken:
		return HoldBroken
	}
	return HoldLost
}

// lockStatus is the state of the lock as PHP gets it in FPM_GATE_LOCK.
type lockStatus string

const (
	lockHeld   lockStatus = "held"
	lockLocal  lockStatus = "local"  // held on this host only: the store fails
	lockNone   lockStatus = "none"   // there is no session, or the route takes no lock
	lockPassed lockStatus = "passed" // the lock was not acquired, and the policy lets the request go on
	lockRead   lockStatus = "read"   // the requests ahead have ended
	lockLater  lockStatus = "later"  // it is acquired when the body is there
)
