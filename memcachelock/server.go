package memcachelock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// server is one memcached: how it is reached, whether it is up, and whether it may have lost what it had. It knows
// items and no locks. While it is known to be down, requests fail without being sent.
type server struct {
	addr    Addr
	options serverOptions
	hooks   hooks
	counts  counts

	// What is in flight, by its kind. The watcher has a connection of its own.
	takes    *lane // in the way of requests
	renewals *lane
	releases *lane
	polls    *lane
	others   *lane

	touches touches

	silence atomic.Int64 // a time.Duration: how long the server has been seen not to answer, zero while it does

	mu       sync.Mutex
	down     error     // nil: up, as far as we know
	since    time.Time // when that began; zero: never seen
	silent   time.Time // when the silence began
	counted  time.Time // until when it has been counted
	returned bool      // it was down before
	relapses int       // in a row
	rest     time.Time // not up before
	stalled  time.Time // when this process was last seen to have been stopped
	err      error     // the last failure
	epochs   epochs
}

// serverOptions are those of a Store that its servers need.
type serverOptions struct {
	timeout            time.Duration
	epoch              string // the name of its item
	tls                *tls.Config
	username, password string
	dial               func(ctx context.Context, network, address string) (net.Conn, error)
}

// hooks is what a server calls. The functions must not block, but for beat; nil: nothing.
type hooks struct {
	event func(kind EventKind, err error)
	up    func()                              // it is up, as the watcher has just seen
	lost  func()                              // it may have lost all items
	beat  func(*wire, map[string]*item) error // with each heartbeat, which has read the epoch and names
	names []string
}

// What may be in flight on a server at once, each over a connection of its own, of which memcached serves 1,024 by
// default. All of them may idle. With the watcher's it makes maxConns.
const (
	maxTakes    = 16
	maxRenewals = 4 // of many leases each
	maxReleases = 16
	maxPolls    = 1
	maxOthers   = 2
	maxConns    = maxTakes + maxRenewals + maxReleases + maxPolls + maxOthers + 1
)

// A server that times out soon after it was back, time and again, rests for a while: it may answer its watcher and
// nothing else.
const (
	soon = 5 * time.Second
	rest = 2 * time.Second
)

func newServer(a Addr, o serverOptions) *server {
	v := &server{addr: a, options: o}
	v.takes, v.renewals = v.newLane(maxTakes), v.newLane(maxRenewals)
	v.releases, v.polls, v.others = v.newLane(maxReleases), v.newLane(maxPolls), v.newLane(maxOthers)
	v.touches.lane = v.renewals
	return v
}

// close closes all connections that idle, which are all when nothing is in flight.
func (v *server) close() { v.closeIdle() }

func (v *server) closeIdle() {
	for _, l := range []*lane{v.takes, v.renewals, v.releases, v.polls, v.others} {
		l.close()
	}
}

// get reads items, with their CAS ids. Those that do not exist are left out.
func (v *server) get(l *lane, names ...string) (items map[string]*item, err error) {
	err = l.inTurn(true, func(c *wire) error {
		items, err = c.get(names...)
		return err
	})
	return items, err
}

// write writes an item. An error that is not the server's own answer leaves it open whether it did, but for those of
// skipped.
func (v *server) write(l *lane, it *item) error {
	return l.inTurn(false, func(c *wire) error { return c.write(it) })
}

// take writes an item and reads the named ones, with their CAS ids, in one go and before until. What was written before
// a flush is gone then, and what was written after one comes without the epoch that we know. So taking a lock detects
// any flush, and gets the CAS id and the queue in the same round trip.
func (v *server) take(l *lane, until time.Time, it *item, names []string) (items map[string]*item, err error) {
	err = l.atOnce(until, func(c *wire) error {
		items, err = c.take(it, names)
		return err
	})
	return items, err
}

// Errors of requests that were not sent, beside those of a dial.
var (
	errBusy   = errors.New("too many requests are in flight")
	errForgot = errors.New("the server may have lost its leases")
)

// downError is returned for a request that was not sent because of an earlier failure.
type downError struct{ cause error }

func (e *downError) Error() string { return "server marked down: " + e.cause.Error() }
func (e *downError) Unwrap() error { return e.cause }

// dialError is returned when no connection could be made.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// skipped reports whether the request that ended with err never reached the server.
func skipped(err error) bool {
	var dial *dialError
	var down *downError
	return errors.As(err, &dial) || errors.As(err, &down) || errors.Is(err, errBusy)
}

func (v *server) named(err error) error { return fmt.Errorf("memcached %s: %w", v.addr, err) }

// broken reports whether the connection ended, as stale ones do. The request may have reached the server or not.
func broken(err error) bool {
	var dial *dialError
	return !errors.As(err, &dial) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// unreachable reports whether the next request would fare no better, and may cost a timeout.
func unreachable(err error) bool {
	var dial *dialError
	return timedOut(err) || errors.As(err, &dial) && !errors.Is(err, errForgot)
}

func (v *server) tell(kind EventKind, err error) {
	if v.hooks.event != nil {
		v.hooks.event(kind, err)
	}
}
