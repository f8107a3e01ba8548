// Package kv is what a store of locks needs of a server that it shares with other hosts: items, each with a name, a
// value, a time to live and a version, and the certainty that no loss of items goes unnoticed. It knows no locks, and
// no protocol: internal/memcached implements Server, internal/sharedlock builds on it.
//
// Server is the contract between these two. Poller, on top of any Server, reads items again and again, many in one
// round trip. ServerStats are the figures of a server, in which all rooms count.
package kv

import (
	"context"
	"errors"
	"net"
	"time"
)

// Item is what a server has under a name, or is to have.
type Item struct {
	Name  string
	Value []byte

	// TTL is how long the item lives when it is written: in whole seconds, and up to a second less. Zero is for ever;
	// Delete removes what Version names.
	TTL time.Duration

	// Version is another one after each write. A write of an item with a version succeeds if the item has not changed
	// since; a write without one, zero, if there is no item of that name. Touching an item does not change it.
	Version uint64
}

// Delete as the TTL of an item removes it: the item of that version and no other.
const Delete time.Duration = -1

// Server is one server that keeps items. Its methods are called from many goroutines at once. None but Watch takes
// longer than the timeout of one round trip and the wait for a free connection, which is bounded: a server that is
// known to be down is not asked. Errors are classified by Answered, NotSent, TimedOut and the sentinels; after any
// other error of a write, it is unknown whether the write was or will be done.
//
// Names of items are read in one go, and the results are in their order, nil for an item that does not exist.
type Server interface {
	// Name is the server's address, for operators.
	Name() string

	// Take writes it and reads the named items back, in one round trip that is over before until. If the server refuses
	// to write, the items are read nevertheless. The server's epoch is read along: the error is ErrEpoch, with the items,
	// if the write was done but the server may have lost what it had before.
	Take(until time.Time, it *Item, names ...string) ([]*Item, error)

	// Check reads the named items and the epoch before until. The error is ErrEpoch, with the items, if the server may
	// have lost what it had.
	Check(until time.Time, names ...string) ([]*Item, error)

	// Read reads the named items, without a look at the epoch.
	Read(lane Lane, names ...string) ([]*Item, error)

	// Write writes it, in LaneWrite.
	Write(it *Item) error

	// Touch makes an item live for ttl from now, and returns it without its version, or ErrMissing. Many of them go in
	// one round trip, in LaneTouch.
	Touch(name string, ttl time.Duration) (*Item, error)

	// Poll reads many lists of names and the epoch in one round trip, and makes the touched items live for ttl from now.
	// The error is ErrEpoch, without items, if the server may have lost what it had.
	Poll(lists [][]string, touch []string, ttl time.Duration) ([][]*Item, error)

	// WriteAll writes the items in one round trip, next to those of Poll. What became of each shows at the next look.
	WriteAll(items []*Item) error

	// State returns what is known of the server. It sends nothing.
	State() State

	// Stats returns the figures of the server as they are now. Count changes them: its users count there, too.
	Stats() ServerStats
	Count(change func(*ServerStats))

	// Watch watches the server until ctx is done, and calls its hooks: it notices that the server is down, up again, or
	// has lost its items.
	Watch(ctx context.Context)

	// Close closes the connections. Nothing may be in flight.
	Close()
}

// Open makes a server that calls the given hooks.
type Open func(Hooks) Server

// Hooks is what a server calls, from goroutines of its own. The functions must not block; nil: nothing.
type Hooks struct {
	Down  func(err error) // it could not be reached; nothing is sent until it is back
	Up    func()          // it is back
	Lost  func()          // it may have lost all items, and a grace begins
	Begun func()          // some time after Lost: it may have lost all items again, and a new grace begins
	Alive func()          // it has answered a heartbeat, or is back

	// With each heartbeat the items of these names are read, and Beat may return one to be written, or nil.
	Names []string
	Beat  func(items []*Item) *Item
}

// State is what is known of a server.
type State struct {
	Down      error     // why nothing is sent to it; nil: it is up, as far as is known
	Away      bool      // it is down, and has been silent for too long for a hiccup
	Silent    time.Time // when the silence began; only while it is down
	GraceEnds time.Time // no new claims before, so that the users of lost items can add them again first
	Losses    uint64    // how often it may have lost all items
	JustLost  bool      // the last loss is so short a time ago that none of its users can have made a new claim
}

// Granting reports whether no grace is on.
func (s State) Granting() bool { return !time.Now().Before(s.GraceEnds) }

// Lane is a set of connections to a server. Each lane has its own, so that none is starved by another.
type Lane int

// The lanes for Server.Read. Take and Check have one of their own, as has Poll.
const (
	LaneTouch Lane = iota // what keeps items alive
	LaneWrite             // what removes or replaces them
	LaneRead              // what only wants to know
)

// What a server answers to a write or touch that it refuses.
var (
	ErrExists  = errors.New("an item of that name exists")   // to a write without a version
	ErrChanged = errors.New("the item has changed since")    // to a write with a version
	ErrMissing = errors.New("there is no item of that name") // to a touch, or a write with a version
)

// Other errors of requests.
var (
	ErrNotSent   = errors.New("the server was not reached")         // is asked by NotSent only
	ErrBusy      = errors.New("too many requests are in flight")    // nothing was sent
	ErrEpoch     = errors.New("the server may have lost its items") // a grace has begun
	ErrGrace     = errors.New("the server makes no new claims yet") // of a look: nothing was sent
	ErrMalformed = errors.New("unexpected answer")                  // wraps what the server said
)

// Refused reports whether err is the server's own answer, that it has not written or touched.
func Refused(err error) bool {
	return errors.Is(err, ErrExists) || errors.Is(err, ErrChanged) || errors.Is(err, ErrMissing)
}

// Answered reports whether the server has answered a request that ended with err.
func Answered(err error) bool { return err == nil || Refused(err) }

// NotSent reports whether the request that ended with err never reached the server.
func NotSent(err error) bool { return errors.Is(err, ErrNotSent) || errors.Is(err, ErrBusy) }

// TimedOut reports whether err means that a request got no answer in time.
func TimedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded)
}
