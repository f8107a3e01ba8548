package fcgi

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// leftInSocket is the number of bytes at the head of the kernel's receive queue that have been read (peeked) but not
// removed. They stay there until the response is complete.
//
// A web server takes the end of the file for the end of a response. A unix socket cannot be reset, but if it is closed
// while bytes of its peer are unread, the peer's next read fails with ECONNRESET, whatever the reason for the close:
// Break, a failed write in the middle of a record, or the end of the process. PHP-FPM looks the same to a web server
// when a worker dies, because the end of stdin is unread. Over TCP the gate resets the connection, and leaves nothing
// unread.
type leftInSocket struct{ n atomic.Int64 }

// look reads into b like Read, but on a unix socket it also leaves the bytes in the socket. The bytes of the last look
// must have been taken.
func (c *Conn) look(b []byte) (int, error) {
	if !netpoll.IsUnix(c.nc) {
		return c.nc.Read(b)
	}
	n, err := netpoll.Peek(c.nc, b)
	c.unread.n.Store(int64(n))
	return n, err
}

// lookNow is look without waiting, whatever the deadline. If nothing has arrived, it returns os.ErrDeadlineExceeded.
func (c *Conn) lookNow(b []byte) (n int, err error) {
	raw, err := c.nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	flags := uintptr(0)
	if netpoll.IsUnix(c.nc) {
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
		c.unread.n.Store(int64(n))
	}
	return n, nil
}

// take removes the bytes that look has left in the socket. It does not wait, so no deadline applies.
func (c *Conn) take() error {
	left := int(c.unread.n.Swap(0))
	if left == 0 {
		return nil
	}
	raw, err := c.nc.SyscallConn()
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
func (c *Conn) resetsOnClose() bool { return c.unread.n.Load() > 0 }
