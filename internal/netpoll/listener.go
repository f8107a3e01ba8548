package netpoll

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// listener accepts connections as sockets of this package from a net.Listener, which it owns.
type listener struct {
	net.Listener
	socket *socket // a duplicate descriptor of the listening socket
}

// NewListener returns a listener whose Accept returns Conns of this package. It accepts on l, a *net.UnixListener or
// *net.TCPListener or a wrapper of one, and owns it.
func NewListener(l net.Listener) (net.Listener, error) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return nil, net.UnknownNetworkError(l.Addr().Network())
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	// The duplicate lets this package wait in its own poller. l keeps its descriptor, because its Close also removes the
	// path of a unix socket.
	fd := -1
	var dupErr error
	if err := raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("dup: %w", dupErr)
	}
	// Both descriptors share O_NONBLOCK, which Go has set on l's.
	_, isTCP := l.Addr().(*net.TCPAddr)
	s, err := newSocket(fd, !isTCP)
	if err != nil {
		return nil, err
	}
	return &listener{Listener: l, socket: s}, nil
}

// Accept waits for the next connection. It ignores connections that are gone before they are accepted.
func (l *listener) Accept() (net.Conn, error) {
	var fd int
	var errno syscall.Errno
	err := rawSocket{l.socket}.Read(func(listener uintptr) bool {
		fd, errno = accept(listener)
		return errno != unix.EAGAIN
	})
	if err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, os.NewSyscallError("accept4", errno)
	}
	if !l.socket.unix {
		// As package net does. Records are written whole, so Nagle's algorithm would only delay them.
		enable(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
		enable(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE) // a host can vanish
	}
	s, err := newSocket(fd, l.socket.unix)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// accept accepts without waiting: with EAGAIN, there is no connection. The kernel gives no peer address, which no
// caller needs.
func accept(listener uintptr) (int, syscall.Errno) {
	for {
		fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, listener, 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno != unix.EINTR && errno != unix.ECONNABORTED {
			return int(fd), errno
		}
	}
}

// enable sets a socket option of a C int to 1.
func enable(fd int, level, option uintptr) {
	on := int32(1)
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), level, option,
		uintptr(unsafe.Pointer(&on)), unsafe.Sizeof(on), 0)
}

// Close ends Accept with net.ErrClosed. It closes both descriptors, and removes a unix socket's path where l would.
func (l *listener) Close() error {
	_ = l.socket.Close()
	return l.Listener.Close()
}
