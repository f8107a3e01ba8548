package fcgi

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrHungUp is that of a request whose web server has closed its conn, or has aborted it.
var ErrHungUp = errors.New("the web server has hung up")

// queueWatchDelay is how long a request may wait before its web server is watched for hanging up. Most have their
// turn by then, where they wait for a connection, and never cost a goroutine.
const queueWatchDelay = 5 * time.Millisecond

// hangUp is the context of a request that waits. It is done when the web server hangs up; a goroutine
// watches for that, from shortly after the first call of Done until stop.
type hangUp struct {
	conn *Conn

	mu      sync.Mutex
	done    chan struct{} // nil until somebody asks
	cause   error         // set before done is closed
	timer   *time.Timer   // starts watch
	stopped chan struct{} // closed by watch when it returns
}

var _ context.Context = (*hangUp)(nil)

func (h *hangUp) Deadline() (time.Time, bool) { return time.Time{}, false }
func (h *hangUp) Value(any) any               { return nil }
func (h *hangUp) Err() error                  { return h.err() }

func (h *hangUp) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause
}

// Done starts the watching, the first time that somebody means to wait.
func (h *hangUp) Done() <-chan struct{} {
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

// watch waits for the web server to hang up, or for stop. What it sends meanwhile stays unread: its request
// is not being served yet.
func (h *hangUp) watch() {
	defer close(h.stopped)
	raw, err := h.conn.nc.SyscallConn()
	if err == nil && raw.Read(h.look) == nil {
		h.end(ErrHungUp)
	}
}

// look asks, without waiting, whether the web server has hung up, or has aborted the request.
func (h *hangUp) look(fd uintptr) bool { return hungUp(fd) || h.conn.aborts(fd) }

// end makes the context done, with the first cause that is given.
func (h *hangUp) end(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause == nil {
		h.cause = cause
		close(h.done)
	}
}

// stop ends the watching, if it was ever begun, so that somebody else can read from the conn.
func (h *hangUp) stop() {
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

// lookOnce is for a wait that was over before it was watched.
func (h *hangUp) lookOnce() {
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

// asked says whether Done has been called.
func (h *hangUp) asked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done != nil
}

// setWaiting notes what Shutdown has to end, and says whether it has been called to end waiters already.
func (c *Conn) setWaiting(h *hangUp) (ended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = h
	return c.endWaiters
}

// hungUp asks the kernel whether the peer has closed its conn, without reading what it may have sent before.
// A unix socket tells a peer that has closed from one that has only shut its sending side. TCP does not: a
// FIN is taken for the end.
func hungUp(fd uintptr) bool {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
	n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&unix.Timespec{})), 0, 0, 0)
	if errno != 0 || n == 0 {
		return false
	}
	if p.Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
		return true
	}
	return p.Revents&unix.POLLRDHUP != 0 && !isUnixFD(fd)
}

// aborts reports whether the record that comes next is an abort request for the request that is being served. It takes
// nothing, and does not wait.
func (c *Conn) aborts(fd uintptr) bool {
	taken := int(c.unread.n.Load())
	b := newBuffer(taken + headerLen)
	defer b.free()
	n, errno := receiveNow(fd, b.b[:taken+headerLen], unix.MSG_PEEK)
	if errno != 0 || n < taken+headerLen {
		return false
	}
	h := ParseHeader(b.b[taken:])
	return h.check() == nil && h.Type == TypeAbortRequest && h.RequestID == c.req.ID
}
