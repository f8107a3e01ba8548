package fcgi

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// ErrHungUp is returned when the web server has closed the conn of a request or aborted the request.
var ErrHungUp = errors.New("the web server has hung up")

// queueWatchDelay is how long a request may wait before its conn is watched for a hang-up. Most requests that wait for
// a connection have one by then, and never cost a goroutine.
const queueWatchDelay = 5 * time.Millisecond

// waitContext is the Context of a request that waits. It is done when the web server hangs up. A goroutine watches for
// that from shortly after the first call of Done until stop.
type waitContext struct {
	conn *Conn

	mu      sync.Mutex
	done    chan struct{} // nil until Done is called
	cause   error         // set before done is closed
	timer   *time.Timer   // starts watch
	stopped chan struct{} // closed by watch when it returns
}

var _ context.Context = (*waitContext)(nil)

func (h *waitContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (h *waitContext) Value(any) any               { return nil }
func (h *waitContext) Err() error                  { return h.err() }

func (h *waitContext) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// Done returns the channel, and the first time starts the watching.
func (h *waitContext) Done() <-chan struct{} {
	h.mu.Lock()
	first := h.done == nil
	if first {
		h.done = make(chan struct{})
		h.stopped = make(chan struct{})
		_ = h.conn.nc.SetReadDeadline(time.Time{})
		h.timer = time.AfterFunc(queueWatchDelay, h.watch)
	}
	h.mu.Unlock()
	if first && h.conn.setWaiting(h) {
		h.end(ErrShutdown)
	}
	return h.done
}

// watch waits for the web server to hang up, or for stop. It does not read what the web server sends.
func (h *waitContext) watch() {
	defer close(h.stopped)
	raw, err := h.conn.nc.SyscallConn()
	if err == nil && raw.Read(h.look) == nil {
		h.end(ErrHungUp)
	}
}

// look reports, without waiting, whether the web server has hung up or has aborted the request.
func (h *waitContext) look(fd uintptr) bool {
	return netpoll.PeerClosed(fd) || h.conn.in.aborts(fd, h.conn.req.ID)
}

// end makes the context done. The first cause counts.
func (h *waitContext) end(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause == nil {
		h.cause = cause
		close(h.done)
	}
}

// stop ends the watching, if it has started, so that the conn can be read.
func (h *waitContext) stop() {
	if !h.asked() {
		return
	}
	h.conn.setWaiting(nil)
	if h.timer.Stop() {
		close(h.stopped)
		h.lookOnce()
		return
	}
	_ = h.conn.nc.SetReadDeadline(past)
	<-h.stopped
	_ = h.conn.nc.SetReadDeadline(time.Time{})
}

// lookOnce looks once after a wait that ended before the watching started.
func (h *waitContext) lookOnce() {
	raw, err := h.conn.nc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if h.look(fd) {
			h.end(ErrHungUp)
		}
	})
}

// asked reports whether Done has been called.
func (h *waitContext) asked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done != nil
}

// setWaiting sets the context that Shutdown must end, and reports whether Shutdown has already ended waiters.
func (c *Conn) setWaiting(h *waitContext) (ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = h
	return c.endWaiters
}
