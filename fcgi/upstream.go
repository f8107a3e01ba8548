package fcgi

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// upstream is one connection to PHP-FPM. It serves one request at a time.
type upstream struct {
	nc       netpoll.Conn
	backend  *backend
	dialled  time.Time
	idle     time.Time // since when, where it is pooled
	reused   bool      // it has served a request before this one
	sent     time.Time // when its present request was sent
	answered bool      // that request has got its first byte
	id       uint16    // of that request: 1 for the first of the connection, then 2, …

	announced bool // begin request has been sent, and nothing after it

	shared atomic.Bool // its descriptor may have been passed to another process

	unanswered *list.Element // its place in the pool's list, while it is not answered
}

// dial connects to a. A unix socket whose backlog is full refuses with EAGAIN at once: dial tries again until timeout
// is over, so that a burst waits here instead of failing there. A timeout of zero is none.
func dial(ctx context.Context, a netaddr.Addr, timeout time.Duration) (netpoll.Conn, error) {
	if a.Network != "unix" {
		return dialTCP(ctx, a, timeout)
	}
	until := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		nc, err := netpoll.DialUnix(a.Address)
		if err == nil {
			return nc, nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil, err
		}
		if time.Now().Add(pause).After(until) {
			return nil, fmt.Errorf("%w for %v: its backlog (listen.backlog) is full", err, timeout)
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// synTimeout is how long one attempt to connect over loopback may take.
const synTimeout = 250 * time.Millisecond

// dialTCP connects to a. Over loopback the kernel answers an attempt at once or drops it: when the backlog is full, or
// when the listener is just being closed. It would repeat the attempt after one second, three and seven. dialTCP gives
// it up and makes another one instead.
func dialTCP(ctx context.Context, a netaddr.Addr, timeout time.Duration) (netpoll.Conn, error) {
	until := deadline(timeout)
	d := net.Dialer{Deadline: until, KeepAlive: -1}
	if a.IsLoopback() {
		d.Timeout, d.FallbackDelay = synTimeout, synTimeout/2 // localhost may have a second address
	}
	for {
		// Without ctx: net would call its Done in a goroutine of its own, maybe after the request, when its conn
		// belongs to the next one.
		nc, err := d.Dial(a.Network, a.Address)
		if err == nil {
			return nc.(*net.TCPConn), nil
		}
		if e, is := errors.AsType[net.Error](err); !is || !e.Timeout() { // net has two errors of its own for that
			return nil, err
		}
		if d.Timeout == 0 || timeout > 0 && !time.Now().Before(until) {
			return nil, fmt.Errorf("%w after %v: its host is down, or its backlog (listen.backlog) is full", err, timeout)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readAnswer reads the start of an answer, which cannot be there yet.
func (u *upstream) readAnswer(b []byte) (int, error) {
	return netpoll.ReadAnswer(u.nc, b)
}

// nextID gives the connection's next request an id that none before it had: that marks what PHP-FPM still sends for an
// earlier one.
func (u *upstream) nextID() uint16 {
	u.id++
	return u.id
}

// hadID reports whether an earlier request of the connection had that id.
func (u *upstream) hadID(id uint16) bool { return id > 0 && id < u.id }

// lastID is the id of the last request that a connection may carry.
const lastID = 1<<16 - 1

// quiet reports whether a pooled connection is open and PHP-FPM has sent nothing on it since the last end request. It
// does not wait.
func (u *upstream) quiet() bool {
	raw, err := u.nc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, errno := netpoll.ReceiveNow(fd, b[:], unix.MSG_PEEK)
		quiet = errno == unix.EAGAIN
	})
	return quiet && err == nil
}

// idleWait is how long a worker may take to come back for its next request after its response has ended. Tests lengthen
// it.
var idleWait = 500 * time.Microsecond

// workerIdle reports whether the worker has come back for its next request. After fastcgi_finish_request() its
// script goes on when the response has ended: it leaves the end of stdin unread until then. A unix socket can see
// that, and has an event for it. TCP cannot, so there it returns false.
func (u *upstream) workerIdle() bool {
	if !u.isUnix() {
		return false
	}
	idle, err := netpoll.AwaitTaken(u.nc, idleWait)
	return idle && err == nil
}

// unread returns how many bytes of ours PHP-FPM has not read yet. It needs a unix socket.
func (u *upstream) unread() (n int, err error) {
	raw, err := u.nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(fd uintptr) { n = netpoll.OutQueue(fd) })
	return n, err
}

func (u *upstream) isUnix() bool { return netpoll.IsUnix(u.nc) }

// close closes the connection. If another process may have it too, only a shutdown lets PHP-FPM notice that.
func (u *upstream) close() {
	if u.shared.Load() {
		_ = u.nc.CloseWrite()
		_ = u.nc.CloseRead()
	}
	_ = u.nc.Close()
}

// backend is one address of PHP-FPM.
type backend struct {
	addr      netaddr.Addr
	busy      int
	dialling  int         // of busy: connections that are being made
	idle      []*upstream // the last one is the freshest
	downUntil time.Time   // passed over until then, if there is another
	health    Health      // as its ping says
}

// Health is the result of an address's last ping. A pool sends none itself: whoever does calls SetHealth.
type Health int

// The possible values.
const (
	Healthy Health = iota // it answers, or was not pinged
	Busy                  // it accepts, but all workers are busy with requests of the pool
	Failing               // it does not answer
)
