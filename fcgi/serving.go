package fcgi

import (
	"syscall"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// Serving is the connection to PHP-FPM that serves a request, for callers that look at the process at its other end. It
// is comparable: a request that is sent again is served by another one. The zero Serving serves nothing.
type Serving struct {
	x  *Exchange
	up *upstream
}

// Serving returns the connection that serves the request now, or whose script is followed after its response. It
// returns false if there is none. Any goroutine may call it.
func (x *Exchange) Serving() (Serving, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	up := x.up
	if up == nil && !x.left {
		up = x.followed
	}
	return Serving{x, up}, up != nil
}

// Addr is the address of PHP-FPM that the connection leads to; that of the zero Serving is empty.
func (s Serving) Addr() netaddr.Addr {
	if s.up == nil {
		return netaddr.Addr{}
	}
	return s.up.backend.addr
}

// IsNow reports whether the connection still serves the request.
func (s Serving) IsNow() bool {
	now, ok := s.x.Serving()
	return ok && now == s
}

// SyscallConn returns the connection, whose descriptor may be passed to another process. It must not be written to,
// read from or closed. After the end of the request it may serve another one, or be closed.
func (s Serving) SyscallConn() (syscall.RawConn, error) {
	s.up.shared.Store(true)
	return s.up.nc.SyscallConn()
}

// While calls f, unless the connection no longer serves the request, and lets it serve no other one before f has
// returned: the end of the request waits for f.
func (s Serving) While(f func()) bool {
	s.x.kept.Lock()
	defer s.x.kept.Unlock()
	if !s.IsNow() {
		return false
	}
	f()
	return true
}
