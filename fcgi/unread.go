package fcgi

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// input is what comes from the web server of a conn. What it reads from a unix socket it only peeks at: that stays in
// the kernel's receive queue until the response is complete.
//
// A web server takes the end of the file for the end of a response. A unix socket cannot be reset, but if it is closed
// while bytes of its peer are unread, the peer's next read fails with ECONNRESET, whatever the reason for the close:
// Break, a failed write in the middle of a record, or the end of the process. PHP-FPM looks the same to a web server
// when a worker dies, because the end of stdin is unread. Over TCP the gate resets the connection, and leaves nothing
// unread.
type input struct {
	nc   netpoll.Conn
	left atomic.Int64 // how many bytes at the head of the queue have been read, but not removed
}

// look reads into b like Read, but on a unix socket it also leaves the bytes in the socket. The bytes of the last look
// must have been taken.
func (in *input) look(b []byte) (int, error) {
	if !netpoll.IsUnix(in.nc) {
		return in.nc.Read(b)
	}
	n, err := netpoll.Peek(in.nc, b)
	in.left.Store(int64(n))
	return n, err
}

// lookNow is look without waiting, whatever the deadline. If nothing has arrived, it returns os.ErrDeadlineExceeded.
func (in *input) lookNow(b []byte) (n int, err error) {
	raw, err := in.nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	flags := uintptr(0)
	if netpoll.IsUnix(in.nc) {
		flags = unix.MSG_PEEK
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) { n, errno = netpoll.ReceiveNow(fd, b, flags) })
	switch {
	case err != nil:
		return 0, err
	case errno == unix.EAGAIN:
		return 0, os.ErrDeadlineExceeded
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	case flags != 0:
		in.left.Store(int64(n))
	}
	return n, nil
}

// take removes the bytes that look has left in the socket. It does not wait, so no deadline applies.
func (in *input) take() error {
	left := int(in.left.Swap(0))
	if left == 0 {
		return nil
	}
	raw, err := in.nc.SyscallConn()
	if err != nil {
		return err
	}
	b := newBuffer(left)
	defer b.free()
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		for left > 0 && errno == 0 {
			var n int
			if n, errno = netpoll.ReceiveNow(fd, b.b[:left], 0); n == 0 {
				return
			}
			left -= n
		}
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// resetsOnClose reports whether closing the conn makes the web server's next read fail.
func (in *input) resetsOnClose() bool { return in.left.Load() > 0 }

// aborts reports whether the next record of fd, which is the input's, is an abort request for that id. It consumes
// nothing and does not wait.
func (in *input) aborts(fd uintptr, id uint16) bool {
	taken := int(in.left.Load())
	b := newBuffer(taken + headerLen)
	defer b.free()
	n, errno := netpoll.ReceiveNow(fd, b.b[:taken+headerLen], unix.MSG_PEEK)
	if errno != 0 || n < taken+headerLen {
		return false
	}
	h := ParseHeader(b.b[taken:])
	return h.check() == nil && h.Type == TypeAbortRequest && h.RequestID == id
}

// deadline returns the time after timeout, or no deadline for a timeout of zero.
func deadline(timeout time.Duration) time.Time {
	if timeout == 0 {
		return time.Time{}
	}
	return time.Now().Add(timeout)
}

// past is a deadline in the past: it ends what waits at once.
var past = time.Unix(1, 0)

// truncateTimeout bounds the write of a record to a web server that does not read, before its conn is closed.
const truncateTimeout = 100 * time.Millisecond
