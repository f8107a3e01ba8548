package netpoll

import (
	"cmp"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peek waits for the next bytes of c, and copies them to b without removing them. It returns io.EOF at the end.
func Peek(c Conn, b []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno syscall.Errno
	// Read calls the function again whenever the socket may be readable, until it returns true.
	err = raw.Read(func(fd uintptr) bool {
		n, errno = ReceiveNow(fd, b, unix.MSG_PEEK)
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

// ReceiveNow reads what has arrived into b, which must not be empty, without waiting: with EAGAIN, nothing has. It
// returns 0 at the end of the file. flags are as in recv(2).
func ReceiveNow(fd uintptr, b []byte, flags uintptr) (int, syscall.Errno) {
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

// OutQueue returns the bytes of memory that the kernel holds for what has been sent and not been read: 0 if all has
// been, or if the connection is broken. Over TCP it is what the peer's kernel has not acknowledged.
func OutQueue(fd uintptr) int { return queue(fd, unix.SIOCOUTQ) }

// InQueue returns how many bytes have come and not been read.
func InQueue(fd uintptr) int { return queue(fd, unix.SIOCINQ) }

func queue(fd uintptr, request uintptr) int {
	var n int32 // the kernel writes a C int
	_, _, errno := syscall.RawSyscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// AwaitTaken waits until the peer has read all that was sent over a unix socket, for timeout at most, and reports
// whether it has: what a peer that closes has not read counts as read. It lifts the write deadline of c.
//
// Linux wakes writers a moment before the queue counts as empty, and not again after that. So the end of the wait looks
// once more, and a caller that waits for long had better wait several times.
func AwaitTaken(c Conn, timeout time.Duration) (taken bool, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	look := func(fd uintptr) bool {
		taken = OutQueue(fd) == 0
		return taken
	}
	if err := raw.Control(func(fd uintptr) { look(fd) }); taken || err != nil {
		return taken, err
	}
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return false, err
	}
	err = raw.Write(look)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = raw.Control(func(fd uintptr) { look(fd) })
	}
	return taken && err == nil, cmp.Or(err, c.SetWriteDeadline(time.Time{}))
}

// PeerClosed reports whether the peer has closed its conn, without reading what it may have sent before. A unix socket
// shows whether the peer has closed or only shut its sending side. TCP does not, so a FIN counts as closed.
func PeerClosed(fd uintptr) bool {
	// ppoll with a zero timeout does not wait, and leaves what has arrived where it is.
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
	n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1,
		uintptr(unsafe.Pointer(&unix.Timespec{})), 0, 0, 0)
	if errno != 0 || n == 0 {
		return false
	}
	// POLLHUP means that both directions are shut, as after the peer's close.
	if p.Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
		return true
	}
	return p.Revents&unix.POLLRDHUP != 0 && !isUnixFD(fd)
}

// isUnixFD asks the kernel, because callers have only the descriptor.
func isUnixFD(fd uintptr) bool {
	domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_UNIX
}
