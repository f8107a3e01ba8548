package fcgi

import (
	"container/list"
	"context"
	"errors"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addr is where PHP-FPM listens.
type Addr struct {
	Network string // "unix" or "tcp"
	Address string // a path, or host:port
}

// String is the address as it stands in a config.
func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// upstream is one connection to PHP-FPM. It serves one request at a time.
type upstream struct {
	nc       stream
	backend  *backend
	dialled  time.Time
	idle     time.Time // since when, where it is pooled
	reused   bool      // it has served a request before this one
	sent     time.Time // when its present request was sent
	answered bool      // that request has got its first byte

	unanswered *list.Element // its place in the pool's list, while it is not answered
}

// dial connects to a. A unix socket whose backlog is full refuses with EAGAIN at once: it is asked again until
// timeout is over, so that a burst waits here instead of failing there.
func dial(ctx context.Context, a Addr, timeout time.Duration) (stream, error) {
	if a.Network != "unix" {
		// Without ctx: net would ask for its Done in a goroutine of its own, which may do so when the request is
		// over and its conn belongs to the next one.
		nc, err := (&net.Dialer{Timeout: timeout, KeepAlive: -1}).Dial(a.Network, a.Address)
		if err != nil {
			return nil, err
		}
		return nc.(*net.TCPConn), nil
	}
	until := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		nc, err := dialUnix(a.Address)
		if err == nil {
			return nc, nil
		}
		if !errors.Is(err, unix.EAGAIN) || time.Now().Add(pause).After(until) {
			return nil, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readAnswer reads the begin of an answer, which cannot be there yet.
func (u *upstream) readAnswer(b []byte) (int, error) {
	if s, ok := u.nc.(*socket); ok {
		return s.ReadAnswer(b)
	}
	return u.nc.Read(b)
}

// dead looks, without waiting, at whether PHP-FPM has closed the connection, or has sent what it was not
// asked for.
func (u *upstream) dead() bool {
	raw, err := u.nc.SyscallConn()
	if err != nil {
		return true
	}
	dead := true
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		dead = !errors.Is(err, unix.EAGAIN)
	})
	return dead || err != nil
}

// restWait is how long the worker of a pooled connection may take to come back after its answer.
const restWait = 500 * time.Microsecond

// rests says whether the worker of a pooled connection waits for its next request. After fastcgi_finish_request its
// script goes on behind the answer, and would let the next request wait. But it leaves the end of stdin unread, until
// it has ended; a unix socket can tell that, and has an event for it. TCP cannot: there the worker is believed to rest.
func (u *upstream) rests() bool {
	if !u.isUnix() {
		return true
	}
	raw, err := u.nc.SyscallConn()
	if err != nil || u.nc.SetWriteDeadline(time.Now().Add(restWait)) != nil {
		return false
	}
	defer u.nc.SetWriteDeadline(time.Time{})
	return raw.Write(func(fd uintptr) bool { return outQueue(fd) == 0 }) == nil
}

// unread says how many bytes of ours PHP-FPM has not read yet. Only a unix socket knows.
func (u *upstream) unread() (n int, err error) {
	raw, err := u.nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(fd uintptr) { n = outQueue(fd) })
	return n, err
}

// outQueue is the memory that the kernel holds for what has been sent and not been read: 0 if all has.
func outQueue(fd uintptr) int {
	var n int32
	_, _, errno := syscall.RawSyscall(unix.SYS_IOCTL, fd, unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0 // of a connection that is broken
	}
	return int(n)
}

func (u *upstream) isUnix() bool { return isUnix(u.nc) }
