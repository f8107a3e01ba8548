package fcgi

import (
	"cmp"
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// link is what joins an exchange to its connection to PHP-FPM. The goroutine of the exchange sets it and takes it away;
// any other may abort the exchange meanwhile, or look at the process at the other end.
type link struct {
	kept keeping // comes before mu

	mu       sync.Mutex
	up       *upstream    // nil before it is there, and once it has been given back
	web      netpoll.Conn // the conn that gets the response
	since    time.Time    // when up was there
	aborted  error        // the cause
	giveUp   context.CancelCauseFunc
	followed *upstream // of a script that goes on after its response
	left     bool      // that script is no longer followed
}

// keeping is held while a connection must go on serving its request.
type keeping struct{ sync.Mutex }

// await returns once the connection may serve another request.
func (k *keeping) await() {
	k.Lock()
	defer k.Unlock()
}

// set makes up the exchange's connection. It returns the cause if the exchange has been aborted.
func (l *link) set(up *upstream, web netpoll.Conn) (aborted error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.web, l.since = up, web, time.Now()
	return l.aborted
}

// take takes the connection out of the reach of abort. It returns nil if that has been done.
func (l *link) take() *upstream {
	l.kept.await()
	l.mu.Lock()
	defer l.mu.Unlock()
	up := l.up
	l.up = nil
	if l.aborted != nil && up != nil {
		_ = l.web.SetWriteDeadline(time.Time{}) // what is passed on from now on, abort leaves alone
	}
	return up
}

// follow keeps a connection that was taken within the reach of leave, as its script goes on after its response.
func (l *link) follow(up *upstream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = up
}

// abort ends the use of the connection, or the wait for another one. The first cause counts.
func (l *link) abort(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = cmp.Or(l.aborted, cause)
	if l.giveUp != nil {
		l.giveUp(cause)
	}
	if l.up != nil {
		_ = l.up.nc.SetDeadline(past)
		_ = l.web.SetWriteDeadline(past) // of a web server that does not read
	}
}

// onAbort has abort end the wait for another connection, by giveUp.
func (l *link) onAbort(giveUp context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveUp = giveUp
	if l.aborted != nil {
		giveUp(l.aborted)
	}
}

// cause is the cause of an abort; nil: there was none.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.aborted
}

// interrupted is the cause of an abort while the connection was in use; nil: there was none.
func (l *link) interrupted() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up == nil {
		return nil
	}
	return l.aborted
}

// readUntil bounds the reading from PHP-FPM, and reports whether it has: abort has ended it already otherwise.
func (l *link) readUntil(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.aborted != nil {
		return false
	}
	_ = l.up.nc.SetReadDeadline(t)
	return true
}

// leave ends the reading from a connection that is followed, now or as soon as it would be.
func (l *link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = true
	if l.followed != nil {
		_ = l.followed.nc.SetReadDeadline(past)
	}
}

// isLeft reports whether leave has been called.
func (l *link) isLeft() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// connected is when the connection was there; the zero time before that.
func (l *link) connected() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}

// serving returns the connection as others may look at it.
func (l *link) serving() (Serving, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	up := l.up
	if up == nil && !l.left {
		up = l.followed
	}
	return Serving{l, up}, up != nil
}

// Serving is the connection to PHP-FPM that serves a request, for callers that look at the process at its other end. It
// is comparable: a request that is sent again is served by another one. The zero Serving serves nothing.
type Serving struct {
	link *link
	up   *upstream
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
	now, ok := s.link.serving()
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
	s.link.kept.Lock()
	defer s.link.kept.Unlock()
	if !s.IsNow() {
		return false
	}
	f()
	return true
}
