package fcgi

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

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

// restWait is how long the worker of a pooled connection may take to come back after its answer. Most are there at
// the first look.
const restWait = 500 * time.Microsecond

// rests says whether the worker of a pooled connection waits for its next request. After fastcgi_finish_request its
// script goes on behind the answer, and would let the next request wait. But it leaves the end of stdin unread, until
// it has ended; a unix socket can tell that. TCP cannot: there the worker is believed to rest.
func (u *upstream) rests() bool {
	if !u.isUnix() {
		return true
	}
	until := time.Now().Add(restWait)
	for pause := 10 * time.Microsecond; ; pause *= 2 {
		n, err := u.unread()
		if n == 0 || err != nil {
			return err == nil
		}
		if time.Now().Add(pause).After(until) {
			return false
		}
		time.Sleep(pause)
	}
}

// unread says how many bytes of ours PHP-FPM has not read yet. Only a unix socket knows.
func (u *upstream) unread() (int, error) {
	raw, err := u.nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var errno error
	if err := raw.Control(func(fd uintptr) { n, errno = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return 0, err
	}
	if errno != nil {
		return 0, fmt.Errorf("SIOCOUTQ: %w", errno)
	}
	return n, nil
}

func (u *upstream) isUnix() bool { return isUnix(u.nc) }
