package fcgi

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// stream is a connection on the data path: a socket of ours, or a *net.TCPConn or *net.UnixConn.
type stream interface {
	net.Conn
	rawConn
	CloseRead() error
	CloseWrite() error
}

// rawConn gives access to a file descriptor.
type rawConn interface {
	SyscallConn() (syscall.RawConn, error)
}

// isUnix reports whether s is a unix socket; otherwise it is TCP.
func isUnix(s stream) bool {
	if own, ok := s.(*socket); ok {
		return own.unix
	}
	_, ok := s.(*net.UnixConn)
	return ok
}

func isUnixFD(fd uintptr) bool {
	domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_UNIX
}

// resetOnClose makes closing a TCP connection reset it.
func resetOnClose(s stream) {
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
}
