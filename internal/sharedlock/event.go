package sharedlock

import (
	"fmt"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Event is something that an operator may want to know, once.
type Event struct {
	Kind   EventKind
	Server string          // its address
	Key    sessionlock.Key // of LeaseRegained, LeaseLost and LeaseGone
	Err    error           // of ServerDown and FleetDiffers
}

// EventKind says what has happened.
type EventKind int

// The kinds of events.
const (
	ServerDown    EventKind = iota // it could not be reached; it is not asked until it is back
	ServerUp                       // it is back
	ServerForgot                   // it was restarted or flushed: all leases may be gone from it
	LeaseRegained                  // a lease was missing there, and was added before another gate can have had it
	LeaseLost                      // a lease is another gate's, as its renewal has found; its holder is notified
	LeaseGone                      // a lease was missing at renewal or release: another gate may have had the lock
	FleetDiffers                   // another host keeps the same locks in another way; Err says how
	FleetAgrees                    // no other host does any longer
)

func (k EventKind) String() string {
	switch k {
	case ServerDown:
		return "server is down"
	case ServerUp:
		return "server is up"
	case ServerForgot:
		return "server has lost its leases"
	case LeaseRegained:
		return "lease was missing and is restored"
	case LeaseLost:
		return "lease is lost"
	case LeaseGone:
		return "lease was missing"
	case FleetDiffers:
		return "hosts disagree"
	case FleetAgrees:
		return "hosts agree"
	}
	return fmt.Sprintf("event %d", int(k))
}
