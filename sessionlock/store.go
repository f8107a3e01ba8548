package sessionlock

import (
	"context"
	"encoding/hex"
	"time"
)

// Store keeps leases that several managers compete for. Its methods are called from many goroutines at once, but
// for one key by one goroutine of a manager at a time, and never while that manager has the lease.
type Store interface {
	// Acquire asks once for the lease of key. It returns an error that is ErrHeld if another manager has it, or is
	// to have it next, and one that is ErrStore if the store cannot say. A manager that was told ErrHeld asks again,
	// maybe with the token of another waiter, until it has the lease or withdraws: after 1 to 50 ms, or what a
	// HeldError says.
	//
	// ctx ends when the one who asks has gone; watching it may cost a goroutine. It knows nothing of the max wait,
	// so a question that gets no answer must end by a timeout of the store's own. A question that ends with an error
	// must not leave a lease behind.
	Acquire(ctx context.Context, key Key, token Token) (Lease, error)

	// Withdraw says that the manager does not wait for key any more: it was told ErrHeld, and its last waiter has
	// left. token is that of its last question. What the store keeps for its turn is for others now. It is called
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

// HeldError is an ErrHeld of a store that knows when it is worth asking again.
type HeldError struct {
	Again time.Duration // from now; the manager asks between half of that and all of it
}

func (e *HeldError) Error() string { return ErrHeld.Error() }
func (e *HeldError) Unwrap() error { return ErrHeld }

// Token tells one hold from all others, in this process and elsewhere. Its first half is the manager's.
type Token [16]byte

// String is the token in hexadecimal digits.
func (t Token) String() string { return hex.EncodeToString(t[:]) }

// Manager is what the tokens of one manager have in common, and those of no other.
func (t Token) Manager() [8]byte { return [8]byte(t[:8]) }
