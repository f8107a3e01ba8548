package sessionlock

import (
	"context"
	"encoding/hex"
	"time"
)

// Store keeps leases that several managers compete for. Its methods are called from many goroutines at once, but
// for one key by one goroutine of a manager at a time, and never while that manager has the lease.
type Store interface {
	// Acquire asks once for the lease of key. The error is ErrHeld if another manager has the lease, or is to have
	// it next, and ErrStore if the store cannot say. After an ErrHeld or a RetryError the manager asks again, maybe
	// with the token of another waiter, until it has the lease or withdraws: after 1 to 50 ms, or when the RetryError
	// says. An ErrStore that is no RetryError is final: the store is away. While a store knows that another manager
	// has a lease which may still live, the error is ErrHeld even if the store fails.
	//
	// ctx is canceled when the request goes away; calling Done may start a goroutine. It has no deadline, so the
	// store must apply its own timeout. An Acquire that ends with an error must not leave a lease behind.
	Acquire(ctx context.Context, key Key, token Token) (Lease, error)

	// Adopt returns a lease for a lock that is held although the store has not granted it, because the store fails.
	// The manager no longer waits for key, and renews the lease until Renew goes well, which says that the store has
	// granted the lease after all; ErrLost says that another manager has it. Adopt is called with a mutex held, so it
	// must neither block nor call the manager.
	Adopt(key Key, token Token) Lease

	// Withdraw is called when the manager no longer waits for key: it was told to ask again, and its last waiter has
	// left. token is that of its last Acquire. What the store keeps for its turn is for others now. It is called
	// with a mutex held, so it must neither block nor call the manager; an Acquire by this manager that follows sees
	// it all the same.
	Withdraw(key Key, token Token)

	// TTL is how long a lease lives at least without a renewal; zero says that leases do not end by themselves.
	TTL() time.Duration
}

// Lease is what a manager holds in a Store. Due and Release are called with a mutex held, so they must neither
// block nor call the manager; Renew may run beside them.
type Lease interface {
	// Renew makes the lease live for another TTL. An error that is ErrLost says that it is somebody else's, or
	// nobody's, by now. After any other the manager tries again, and takes the lease for lost when a TTL has passed
	// since it last went well.
	Renew(ctx context.Context) error

	// Due says whether another manager has waited for so long that it should have its turn, although somebody waits
	// here too. It is asked whenever the lock would be handed on within the manager. If it says so, Release follows,
	// and keeps the next turn for that manager: the waiter here asks again at once.
	Due() bool

	// Release ends the lease, unless it is lost: a lease of another manager is never touched. It is called once, for
	// lost leases too. It may return before the store knows; an Acquire by this manager that follows sees the
	// release all the same.
	Release()
}

// RetryError is an answer of a Store that is not final: an ErrHeld, or an ErrStore of a store that has not failed for
// long enough to be taken for away.
type RetryError struct {
	Err   error           // is ErrHeld or ErrStore
	Again time.Duration   // from now; the manager asks between half of that and all of it. Not used with Ready
	Ready <-chan struct{} // receives when it is worth asking again; nil: after Again
}

func (e *RetryError) Error() string { return e.Err.Error() }
func (e *RetryError) Unwrap() error { return e.Err }

// Token tells one hold from all others, in this process and elsewhere. Its first half is the manager's.
type Token [16]byte

// String is the token in hexadecimal digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// Manager is what the tokens of one manager have in common, and those of no other.
func (t Token) Manager() [8]byte { return [8]byte(t[:8]) }
