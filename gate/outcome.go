package gate

import "github.com/fpm-gate/fpm-gate/sessionlock"

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

// lockStatus is what PHP learns of the lock, as FPM_GATE_LOCK.
type lockStatus string

const (
	lockHeld   lockStatus = "held"
	lockLocal  lockStatus = "local"  // held on this host only: the store fails
	lockNone   lockStatus = "none"   // there is no session, or the route wants no lock
	lockPassed lockStatus = "passed" // max wait is over, and the policy says to go on
	lockRead   lockStatus = "read"   // those ahead have been waited for
)
