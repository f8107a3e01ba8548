package gate

import "github.com/fpm-gate/fpm-gate/sessionlock"

// Outcome is how a request ended. There is one for each.
type Outcome int

// The outcomes. Those of requests that were served say what became of the lock.
const (
	OutcomeNone     Outcome = iota // served; there was no session, or no need of its lock
	OutcomeHeld                    // served while it held the lock, as long as that lasted
	OutcomeRead                    // served, after those ahead
	OutcomePassed                  // served without the lock that it wanted
	OutcomeObserved                // served without the lock, as observe says

	OutcomeRedirected     // sent back for its new cookie: its session id was replaced while it waited
	OutcomeMaxWait        // rejected: max wait was over
	OutcomeMaxWaiters     // rejected: max waiters waited already
	OutcomeShutdown       // rejected: the gate is being shut down
	OutcomeStoreFailed    // rejected: the lock store failed
	OutcomeExpired        // ended with its lock
	OutcomeUpstreamBusy   // no upstream connection was free
	OutcomeUpstreamFailed // PHP-FPM did not answer
	OutcomeHungUp         // its web server hung up
	OutcomeAbandoned      // its script ran on for too long after that
	OutcomeBroken         // its response was cut short
	OutcomeFailed         // anything else
	Outcomes              // how many there are
)

// outcomeNames are what operators see.
var outcomeNames = [Outcomes]string{
	"none", "held", "read", "passed", "observed",
	"redirected", "max_wait", "max_waiters", "shutdown", "store_failed", "expired",
	"upstream_busy", "upstream_failed", "hung_up", "abandoned", "broken", "failed",
}

func (o Outcome) String() string { return outcomeNames[o] }

// HoldOutcome is how the hold of a lock ended.
type HoldOutcome int

// The outcomes of a hold.
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

// lockStatus is what PHP learns of the lock, as FPM_GATE_LOCK.
type lockStatus string

const (
	lockHeld   lockStatus = "held"
	lockLocal  lockStatus = "local"  // held on this host only: the store fails
	lockNone   lockStatus = "none"   // there is no session, or the route wants no lock
	lockPassed lockStatus = "passed" // max wait is over, and the policy says to go on
	lockRead   lockStatus = "read"   // those ahead have been waited for
)
