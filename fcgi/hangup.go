package fcgi

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHungUp is that of a request whose web server has closed its conn, or has aborted it.
var ErrHungUp = errors.New("the web server has hung up")

// hangUp is the context of a request that waits. It is done when the web server hangs up; a goroutine
// watches for that from the first call of Done until stop.
type hangUp struct {
	conn *Conn

	mu      sync.Mutex
	done    chan struct{} // nil until somebody asks
	cause   error         // set before done is closed
	stopped chan struct{} // closed by the watcher when it returns
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
		go h.watch()
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
	if err != nil {
		return
	}
	gone := false
	_ = raw.Read(func(fd uintptr) bool {
		gone = hungUp(fd) || aborts(fd, h.conn.req.ID)
		return gone
	})
	if gone {
		h.end(ErrHungUp)
	}
}

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
	_ = h.conn.nc.SetReadDeadline(past)
	<-h.stopped
	_ = h.conn.nc.SetReadDeadline(time.Time{})
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
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	if _, err := unix.Poll(p, 0); err != nil {
		return false
	}
	if p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
		return true
	}
	return p[0].Revents&unix.POLLRDHUP != 0 && !isUnixFD(fd)
}

// aborts looks, without taking it, at whether the next record that has come is an abort request of this id.
func aborts(fd uintptr, id uint16) bool {
	var b [headerLen]byte
	n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil || n < headerLen {
		return false
	}
	h := ParseHeader(b[:])
	return h.check() == nil && h.Type == TypeAbortRequest && h.RequestID == id
}
