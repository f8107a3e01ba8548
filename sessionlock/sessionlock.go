// Package sessionlock says what holding a session's lock means: who waits for it and in which order, for how
// long at most, how long it can be held, and how it is lost.
//
// A Manager keeps one queue a session and process. Only the head of a queue talks to the Store, which keeps
// the leases that several managers compete for; a release hands the lease on within the process where it can.
// The package knows nothing of PHP, FastCGI or memcached. Locks of idle sessions leave no trace in memory.
package sessionlock

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Key names a lock: a hash of a session id and of the realm that the id belongs to. It tells nobody the id.
type Key [16]byte

// KeyFor returns the key of a session: the first half of the SHA-256 of the realm's length (a uvarint), the realm
// and the id; with a secret, of their HMAC-SHA-256. With a secret, only who knows it can find the key of an id.
// Managers that are to share a lock have to be given the same realm and secret.
func KeyFor(secret []byte, realm string, id []byte) Key {
	if len(secret) == 0 {
		var message [128]byte // on the stack, as long as it suffices
		sum := sha256.Sum256(appendMessage(message[:0], realm, id))
		return Key(sum[:16])
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(appendMessage(nil, realm, id))
	return Key(mac.Sum(nil)[:16])
}

// appendMessage appends what is hashed. The length keeps realm "a" with id "bc" from being realm "ab" with id "c".
func appendMessage(b []byte, realm string, id []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(realm)))
	b = append(b, realm...)
	return append(b, id...)
}

// String is the key in hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Short is the begin of the key, for logs.
func (k Key) Short() string { return hex.EncodeToString(k[:4]) }

// Mode says what a request wants of a lock.
type Mode int

// The modes.
const (
	Exclusive Mode = iota // hold the lock
	Read                  // wait for those ahead, then hold nothing
)

// Policy bounds one acquire.
type Policy struct {
	Mode       Mode
	MaxWait    time.Duration // zero: do not wait at all
	Expiry     time.Duration // the longest hold, from the acquire or from StartExpiry on; zero: none
	LateExpiry bool          // Expiry starts when Lock.StartExpiry is called
	MaxWaiters int           // in the session's queue of this manager; zero: no limit

	// HoldLocally has a lock be held within this manager where the store fails: the order and the one holder remain
	// true of its own requests, and of those of others nobody knows. The next turn asks the store again.
	// Without it, Acquire ends with ErrStore, and a lock whose lease could not be renewed for a TTL is lost.
	HoldLocally bool

	// OnLocal is called when a lock that is held goes on within this manager only: its lease could not be renewed
	// for a TTL, and HoldLocally is set. Else it is as OnLoss. Nil: never.
	OnLocal func(holder Description)

	// OnLoss is called when the lock ends without Release, with its holder and what Lock.Err says. It has a goroutine of its own:
	// the request may be over by then, or Acquire yet to return. Nil: never.
	OnLoss func(holder Description, err error)

	// OnWaiter is called when somebody of this process waits for the lock that is held, at most once a hold: he may have
	// come before it began. It has a goroutine of its own. Nil: never.
	OnWaiter func()
}

// Holder describes who holds a lock or waits for it, to whom an operator asks. It is called while the lock is
// held or waited for, must not block, and may read memory that is valid only so long.
type Holder interface {
	Describe() Description
}

// Description is what an operator sees of a holder or waiter. It holds no session id.
type Description struct {
	Realm  string // the namespace of the session's id
	Gate   string // the gate's name
	Route  string // the route that the request took; "" if none
	Method string // the request's method
	Path   string // the request's path, without its query
	Script string // the script's file name
}

// Errors of Acquire, and of a Lock that ended by itself. WaitError wraps those of a wait.
var (
	// ErrMaxWait is that of a wait that was longer than it may be.
	ErrMaxWait = errors.New("waited too long for the session's lock")
	// ErrTooManyWaiters is that of a session that too many wait for already.
	ErrTooManyWaiters = errors.New("too many requests wait for the session's lock")
	// ErrHeld is a Store's answer to an acquire while somebody else has the lease.
	ErrHeld = errors.New("the lease is held")
	// ErrLost is that of a lease that is not ours any more.
	ErrLost = errors.New("the lease is lost")
	// ErrExpired is that of a lock held for longer than it may be.
	ErrExpired = errors.New("the lock has expired")
	// ErrStore is at the bottom of every error of a store that failed.
	ErrStore = errors.New("the lock store failed")
)

// WaitError says how a wait ended that did not lead to the lock.
type WaitError struct {
	Err    error         // ErrMaxWait, ErrTooManyWaiters, ErrStore or the cause of the context
	Waited time.Duration // how long
	Behind Description   // who held the lock at the begin of the wait, as far as it is known
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("after %v: %v", e.Waited.Round(time.Millisecond), e.Err)
}

func (e *WaitError) Unwrap() error { return e.Err }
