package sessionlock

import (
	"context"
	"encoding/hex"
	"time"
)

// Store keeps leases that several managers compete for. Its methods are called concurrently, but for one key by one
// goroutine of a manager at a time, and never while that manager has the lease.
//
// # One order for each key
//
// Release and Withdraw are called with a mutex held, so a store that needs a round trip for them can only begin it. Yet
// what a manager calls next for the same key must see what it has called before: a Release, then an Acquire, leads to
// the lease at the first attempt, if no other manager was there. So a store that works in the background has to keep
// one order for each key: nothing begins on a server for a key before what was begun earlier for that key on that
// server is over, by its answer or by a timeout. Different keys must not wait for each other, and neither must
// different servers.
//
// The same order is needed where the answer to a write is lost, as the write may be done late: what it leaves has to be
// looked for and removed in that order, too. internal/sharedlock does both with tickets. Nothing of this holds between
// managers: these compete, and the server decides.
type Store interface {
	// Acquire tries once to get the lease of key. It returns ErrHeld if another manager has the lease or is to get it
	// next, and ErrStore if the store cannot say. After an ErrHeld or a RetryError the manager tries again, perhaps with
	// the token of another waiter, until it has the lease or withdraws: after 1 to 50 ms, or as the RetryError says. An
	// ErrStore that is no RetryError is final: the store is down. While a store knows that another manager has a lease
	// that may still live, it returns ErrHeld even if it fails.
	//
	// ctx is canceled when the request goes away; calling Done may start a goroutine. It has no deadline, so the
	// store must apply its own timeout. An Acquire that ends with an error must not leave a lease behind.
	Acquire(ctx context.Context, key Key, token Token) (Lease, error)

	// Adopt returns a lease for a lock that is held although the store, which fails, has not granted it. The manager no
	// longer waits for key. It renews the lease until Renew returns nil, which means that the store has granted the lease
	// after all, or ErrLost, which means that another manager has it. Adopt is called with a mutex held: it must neither
	// block nor call the manager.
	Adopt(key Key, token Token) Lease

	// Withdraw is called when the manager no longer waits for key: after an Acquire that was to be tried again, its last
	// waiter has left. token is the one of its last Acquire. A turn that the store reserves for the manager goes to
	// others. Withdraw is called with a mutex held: it must neither block nor call the manager. A later Acquire by this
	// manager sees its effect nevertheless.
	Withdraw(key Key, token Token)

	// TTL returns how long a lease lives at least without renewal; zero: leases do not end by themselves.
	TTL() time.Duration
}

// Lease is what a manager holds in a Store. ShouldYield and Release are called with a mutex held: they must neither
// block nor call the manager. Renew may run concurrently with them.
type Lease interface {
	// Renew makes the lease live for another TTL. It returns ErrLost if another manager has the lease, or none. After
	// any other error the manager tries again, and treats the lease as lost a TTL after the last success.
	Renew(ctx context.Context) error

	// ShouldYield reports whether another manager has waited so long that it should have the next turn, although a request
	// waits here too. It is called whenever the lock would be handed on within the manager. If it returns true, Release
	// follows and reserves the next turn for that manager; the waiter here tries again at once.
	ShouldYield() bool

	// Release ends the lease, unless it is lost: it never touches a lease of another manager. It is called once, for lost
	// leases too. It may return before the store has the release; a later Acquire by this manager sees it nevertheless.
	// So a store must keep the order of its operations per key.
	Release()
}

// RetryError is returned by a Store whose answer is not final: an ErrHeld, or an ErrStore of a store that has not
// failed for long enough to count as down.
type RetryError struct {
	Err   error           // ErrHeld or ErrStore
	Again time.Duration   // the manager tries again after half of this time to all of it; not used with Ready
	Ready <-chan struct{} // receives when a new attempt is worthwhile; nil: after Again
}

func (e *RetryError) Error() string { return e.Err.Error() }
func (e *RetryError) Unwrap() error { return e.Err }

// Token identifies one hold, across processes. Its first half identifies the manager.
type Token [16]byte

// String returns the token in hexadecimal digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// Manager returns the part that all tokens of one manager, and only those, have in common.
func (t Token) Manager() [8]byte { return [8]byte(t[:8]) }

// RemoteHolder is the holder of a lock as a store knows it, on any host.
type RemoteHolder struct {
	Gate, Host string
	Since      time.Time // by the holder's clock
	Token      Token     // of its lease
}
