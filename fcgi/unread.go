package fcgi

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// leftInSocket is what of a request stays in the socket of its conn until the response is whole: how many bytes at the
// head of the kernel's queue have been looked at and not been taken.
//
// A web server takes the end of the file for the end of a response. A unix socket cannot be reset, but if it is
// closed while bytes of its peer are unread, the peer's next read fails with ECONNRESET, whatever closed it: Break, a
// write that failed in the middle of a record, the end of the process. PHP-FPM looks the same to a web server when a
// worker dies, as it leaves the end of stdin unread. Over TCP a reset is there to be had, and nothing stays unread.
type leftInSocket struct{ n atomic.Int64 }

// look reads what has come into b like Read, but where the conn is a unix socket it leaves it there as well. The
// bytes of the last look must have been taken.
func (c *Conn) look(b []byte) (int, error) {
	if !isUnix(c.nc) {
		return c.nc.Read(b)
	}
	n, err := peek(c.nc, b)
	c.unread.n.Store(int64(n))
	return n, err
}

// lookNow is look without waiting, whatever the deadline: if nothing has come, it returns os.ErrDeadlineExceeded.
func (c *Conn) lookNow(b []byte) (n int, err error) {
	raw, err := c.nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	flags := uintptr(0)
	if isUnix(c.nc) {
		flags = unix.MSG_PEEK
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) { n, errno = receiveNow(fd, b, flags) })
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

// take takes the bytes out of the socket that look has left there. They are there, so it does not wait, and heeds no
// deadline.
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
			if n, errno = receiveNow(fd, b.b[:left], 0); n == 0 {
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

// peek waits for what comes next, and copies it to b without taking it.
func peek(s stream, b []byte) (n int, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno syscall.Errno
	err = raw.Read(func(fd uintptr) bool {
		n, errno = receiveNow(fd, b, unix.MSG_PEEK)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// receiveNow reads what has come, as much as there is room for in b, without waiting: 0 is the end.
func receiveNow(fd uintptr, b []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
			unix.MSG_DONTWAIT|flags, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}
