// Package sessionlock defines what it means to hold a session's lock: the order of the requests that wait for it, how
// long they may wait, how long one may hold it, and how it is lost.
//
// A Manager has one queue per session in its process. Only the head of a queue talks to the Store, which keeps the
// leases that several managers compete for. A release hands the lease on within the process if it can. The package
// knows nothing of PHP, FastCGI or memcached. An idle session takes no memory.
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

// Key identifies a lock: a hash of a realm and a session id in it. It does not reveal the id.
type Key [16]byte

// KeyFor returns the key of a session: the first half of the SHA-256 of the realm's length (a uvarint), the realm and
// the id. With a secret it is their HMAC-SHA-256, and only a holder of the secret can compute the key of an id.
// Managers that share a lock must use the same realm and secret.
func KeyFor(secret []byte, realm string, id []byte) Key {
	if len(secret) == 0 {
		var message [128]byte // on the stack, if the id fits
		sum := sha256.Sum256(appendMessage(message[:0], realm, id))
		return Key(sum[:16])
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(appendMessage(nil, realm, id))
	return Key(mac.Sum(nil)[:16])
}

// appendMessage appends the hash's input. The length distinguishes realm "a" with id "bc" from realm "ab" with id "c".
func appendMessage(b []byte, realm string, id []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(realm)))
	b = append(b, realm...)
	return append(b, id...)
}

// String returns the key in hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Short returns the first 8 digits of the key, for logs.
func (k Key) Short() string { return hex.EncodeToString(k[:4]) }

// Mode is what a request needs the lock for.
type Mode int

// The modes.
const (
	Exclusive Mode = iota // hold the lock
	Read                  // wait for the requests ahead, then hold nothing
)

// Policy bounds one acquire.
type Policy struct {
	Mode       Mode
	MaxWait    time.Duration // zero: do not wait
	Expiry     time.Duration // the longest hold, from Acquire or from StartExpiry on; zero: no limit
	LateExpiry bool          // Expiry starts with Lock.StartExpiry, not with Acquire
	MaxWaiters int           // in the session's queue of this manager; zero: no limit

	// HoldLocally makes the manager hold the lock by itself while the store fails. Order and mutual exclusion still hold
	// within this manager, but not across managers. The next turn tries the store again. Without HoldLocally, Acquire
	// returns ErrStore, and a lock whose lease could not be renewed for a TTL is lost.
	HoldLocally bool

	// OnLocal is called when a held lock continues within this manager only, because its lease could not be renewed for
	// a TTL and HoldLocally is set. It runs in its own goroutine, like OnLoss. Nil: never.
	OnLocal func(holder Description)

	// OnLoss is called when the lock ends without Release, with its holder and the error of Lock.Err. It runs in its own
	// goroutine, perhaps before Acquire returns or after the request has ended. Nil: never.
	OnLoss func(holder Description, err error)

	// OnWaiter is called at most once per hold, when another request in this process waits for the lock, even if it
	// queued before the hold began. It runs in its own goroutine. Nil: never.
	OnWaiter func()
}

// Holder describes the holder of a lock, or a waiter, for operators. Describe is called while the lock is held or
// waited for, with a mutex held: it must not block. It may read memory that is valid only that long.
type Holder interface {
	Describe() Description
}

// Description is what an operator sees of a holder or waiter. It holds no session id.
type Description struct {
	Realm  string // the namespace of the session id
	Gate   string // the gate's name
	Route  string // the route that the request took; "" if none
	Method string // the request's method
	Path   string // the request's path, without its query
	Script string // the script's file name
}

// Errors of Acquire, of Lock.Err and of a Store. Acquire wraps them in a WaitError.
var (
	// ErrMaxWait is returned when a wait exceeds Policy.MaxWait.
	ErrMaxWait = errors.New("waited too long for the session's lock")
	// ErrTooManyWaiters is returned when Policy.MaxWaiters requests already wait.
	ErrTooManyWaiters = errors.New("too many requests wait for the session's lock")
	// ErrHeld is returned by a Store while another manager has the lease.
	ErrHeld = errors.New("the lease is held")
	// ErrLost is returned when the lease has gone to another manager, or is gone.
	ErrLost = errors.New("the lease is lost")
	// ErrExpired is returned when a lock was held for longer than Policy.Expiry.
	ErrExpired = errors.New("the lock has expired")
	// ErrStore is wrapped by every error of a store that failed.
	ErrStore = errors.New("the lock store failed")
)

// WaitError is returned when Acquire ends without the lock.
type WaitError struct {
	Err       error // ErrMaxWait, ErrTooManyWaiters, ErrStore or the context's cause
	Waited    time.Duration
	BlockedBy Description // the holder when the wait began; zero if it was none of this process
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("after %v: %v", e.Waited.Round(time.Millisecond), e.Err)
}

func (e *WaitError) Unwrap() error { return e.Err }
