package fcgi

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// Errors that end the Context of a request.
var (
	// ErrHungUp is returned when the web server has closed the conn of a request or aborted the request.
	ErrHungUp = errors.New("the web server has hung up")
	// ErrShutdown is the cause of a request's Context after Conn.Shutdown.
	ErrShutdown = errors.New("the gate is shutting down")
)

// queueWatchDelay is how long a request may wait before its conn is watched for a hang-up. Most requests that wait for
// a connection have one by then, and never cost a goroutine.
const queueWatchDelay = 5 * time.Millisecond

// waitContext is the Context of a request that waits. It is done when the web server hangs up. A goroutine watches for
// that from shortly after the first call of Done until stop.
type waitContext struct {
	in      *input
	request uint16   // its id
	waiter  *waiting // where the conn finds the context

	outlives bool        // the request goes on after a hang-up, if it is whole
	place    stdinPlace  // to which stdin had come when the wait began
	left     atomic.Bool // the web server has hung up, and it goes on

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
		_ = h.in.nc.SetReadDeadline(time.Time{})
		h.timer = time.AfterFunc(queueWatchDelay, h.watch)
	}
	h.mu.Unlock()
	if first && h.waiter.set(h) {
		h.end(ErrShutdown)
	}
	return h.done
}

// watch waits for the web server to hang up, or for stop. It does not read what the web server sends.
func (h *waitContext) watch() {
	defer close(h.stopped)
	if raw, err := h.in.nc.SyscallConn(); err == nil {
		_ = raw.Read(h.look)
	}
}

// look looks, without waiting, whether the web server has hung up or has aborted the request, and notes that. It
// reports whether there is nothing more to be seen.
func (h *waitContext) look(fd uintptr) bool {
	switch {
	case h.in.aborts(fd, h.request):
		h.end(ErrHungUp)
	case !netpoll.PeerClosed(fd):
		return false
	case h.outlives && h.isWhole(fd):
		h.left.Store(true)
	default:
		h.end(ErrHungUp)
	}
	return true
}

// maxPeek bounds how much of a body is looked at in the socket.
const maxPeek = 1 << 20

// isWhole reports whether all of stdin has come, be it in the socket fd, and no abort behind it. It consumes nothing.
func (h *waitContext) isWhole(fd uintptr) bool {
	taken := int(h.in.left.Load()) // which are in the socket as well
	unread := netpoll.InQueue(fd)
	if unread <= taken || unread > maxPeek {
		return h.place.isWhole()
	}
	b := newBuffer(unread)
	defer b.free()
	n, errno := netpoll.ReceiveNow(fd, b.b[:unread], unix.MSG_PEEK)
	return errno == 0 && n >= taken && h.place.after(b.b[taken:n], h.request).isWhole()
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
	h.waiter.set(nil)
	if h.timer.Stop() {
		close(h.stopped)
		h.lookOnce()
		return
	}
	_ = h.in.nc.SetReadDeadline(past)
	<-h.stopped
	_ = h.in.nc.SetReadDeadline(time.Time{})
}

// lookOnce looks once after a wait that ended before the watching started.
func (h *waitContext) lookOnce() {
	if raw, err := h.in.nc.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { h.look(fd) })
	}
}

// asked reports whether Done has been called.
func (h *waitContext) asked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done != nil
}

// waiting is the request of a conn that waits, which Conn.Shutdown ends.
type waiting struct {
	mu    sync.Mutex
	ctx   *waitContext // nil: none waits
	ended bool         // those that come must not wait either
}

// set sets the context of the request, and reports whether it must end.
func (w *waiting) set(h *waitContext) (ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = h
	return w.ended
}

// end ends the wait, and those that follow.
func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.ctx != nil {
		w.ctx.end(ErrShutdown)
	}
}
