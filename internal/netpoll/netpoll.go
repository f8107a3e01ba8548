// Package netpoll has sockets that are cheap to use where a request needs few system calls, each of which is over in a
// microsecond, and what the kernel knows of a socket beyond its bytes.
//
// DialUnix, and the listener of NewListener, make a Conn that does its system calls directly, and joins a poller of the
// package's own when it first has to wait. All other functions take conns of package net too. The package knows nothing
// of what is sent. It is for Linux only, and it is where the gate has its unsafe code, but for one call in phpworker.
package netpoll

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a connection over a unix socket or TCP: one of this package, or a *net.TCPConn or *net.UnixConn.
type Conn interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// IsUnix reports whether c is a unix socket; otherwise it is TCP.
func IsUnix(c Conn) bool {
	if own, ok := c.(*socket); ok {
		return own.unix
	}
	_, ok := c.(*net.UnixConn)
	return ok
}

// ResetOnClose makes closing a TCP connection reset it.
func ResetOnClose(c Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
}

// ReadAnswer is c.Read when no data can have arrived yet: a socket of this package waits first, which saves a system
// call.
func ReadAnswer(c Conn, b []byte) (int, error) {
	if own, ok := c.(*socket); ok {
		return own.readAnswer(b)
	}
	return c.Read(b)
}
