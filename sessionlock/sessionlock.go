// Package sessionlock says what holding a session's lock means: who waits for it and in which order, for how
// long at most, how long it can be held, and how it is lost.
//
// A Manager keeps one queue a session and process. Only the head of a queue talks to the Store, which keeps
// the leases that several managers compete for; a release hands the lease on within the process where it can.
// The package knows nothing of PHP, FastCGI or memcached. Locks of idle sessions leave no trace in memory.
package sessionlock

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Key names a lock: a hash of a session id and of the realm that the id belongs to. It tells nobody the id.
type Key [16]byte

// KeyFor returns the key of a session. With a secret, only who knows it can find the key of an id. Managers
// that are to share a lock have to be given the same realm and secret.
func KeyFor(secret []byte, realm string, id []byte) Key {
	// The length keeps realm "a" with id "bc" from being realm "ab" with id "c".
	message := make([]byte, 0, 128)
	message = append(message, byte(len(realm)>>8), byte(len(realm)))
	message = append(message, realm...)
	message = append(message, id...)
	if len(secret) == 0 {
		sum := sha256.Sum256(message)
		return Key(sum[:16])
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(message)
	return Key(mac.Sum(nil)[:16])
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
	Expiry     time.Duration // the longest hold, from the acquire on; zero: none
	MaxWaiters int           // in the session's queue of this manager; zero: no limit
	OnLoss     func(error)   // called in a goroutine of its own when the lock ends without Release, with what Lock.Err says; nil: never
}

// Holder describes who holds a lock or waits for it, to whom an operator asks. It is called while the lock is
// held or waited for, must not block, and may read memory that is valid only so long.
type Holder interface {
	Describe() Description
}

// Description is what an operator sees of a holder or waiter. It holds no session id.
type Description struct {
	Gate   string // the gate's name
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

// Store keeps leases that several managers compete for. Its methods are called from many goroutines at once,
// but for one key by one goroutine of a manager at a time, Renew excepted.
type Store interface {
	// Acquire asks once for the lease of key. It returns an error that is ErrHeld if another manager has it,
	// and one that is ErrStore if the store cannot say.
	Acquire(ctx context.Context, key Key, token Token) (Lease, error)
	// TTL is how long a lease lives without a renewal; zero says that leases do not end by themselves.
	TTL() time.Duration
}

// Lease is what a manager holds in a Store.
type Lease interface {
	// Renew makes the lease live for another TTL. ErrLost says that it is somebody else's, or nobody's, by now.
	Renew(ctx context.Context) error
	// Due says whether another manager has waited for so long that it should have its turn, although somebody
	// waits here too. It must be quick: it is asked at each release.
	Due() bool
	// Release ends the lease, unless it is lost: a lease of another manager is never touched. It may return
	// before the store knows; an Acquire by this manager that follows sees the release all the same.
	Release()
}
