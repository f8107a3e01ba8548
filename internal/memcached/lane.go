package memcached

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// lane bounds how many round trips of one kind are in flight on a server, and keeps their connections. Each kind has
// its own, so that none is starved by another.
type lane struct {
	server *Server
	slots  chan struct{} // full: no more may be in flight

	mu   sync.Mutex
	idle []*conn // the one used last at the end; never more than there are slots
}

// conn is a connection to a server. One round trip uses it at a time. It returns to its lane only after a whole answer,
// so no request ever reads the answer to another one.
type conn struct {
	*wire
	nc net.Conn
}

func newLane(v *Server, slots int) *lane { return &lane{server: v, slots: make(chan struct{}, slots)} }

// atOnce runs request as soon as there is a slot; until bounds both. If there is none by then, the error is kv.ErrBusy.
func (l *lane) atOnce(until time.Time, request func(*wire) error) error {
	// The caller is a request that waits for its lock: it prefers an error in time to a late lock.
	err := l.enter(until)
	if err != nil {
		return l.notSent(err)
	}
	defer l.leave()
	return l.run(until, false, request)
}

// inTurn runs request when there is a slot, however long that takes. It does so again if the connection turns out to
// be a stale one and request may run twice.
func (l *lane) inTurn(twice bool, request func(*wire) error) error {
	l.slots <- struct{}{} // each slot is free after a timeout; and if the server is down, at once
	defer l.leave()
	if err := l.server.health.downErr(); err != nil {
		return l.notSent(err)
	}
	return l.run(time.Now().Add(l.server.options.Timeout), twice, request)
}

// enter takes a slot, if the server is up.
func (l *lane) enter(until time.Time) error {
	if err := l.server.health.downErr(); err != nil {
		return err
	}
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	timeout := time.NewTimer(time.Until(until))
	defer timeout.Stop()
	select {
	case l.slots <- struct{}{}:
	case <-timeout.C:
		return kv.ErrBusy
	}
	if err := l.server.health.downErr(); err != nil { // it went down during the wait
		l.leave()
		return err
	}
	return nil
}

func (l *lane) leave() { <-l.slots }

// notSent is err of a request that was not sent.
func (l *lane) notSent(err error) error {
	l.server.Count(func(s *kv.ServerStats) { s.NotSent++ })
	return l.server.named(err)
}

// run makes a round trip, counts it, and notes what it shows about the health of the server.
func (l *lane) run(until time.Time, twice bool, request func(*wire) error) error {
	v, begun := l.server, time.Now()
	err := l.roundTrip(until, request)
	if broken(err) || errors.Is(err, kv.ErrEpoch) {
		v.closeIdle() // the others that idle are stale, too
		if twice {
			if err = l.roundTrip(until, request); broken(err) {
				v.health.fail(begun, err)
			}
		}
	}
	if kv.Answered(err) {
		v.health.heard()
		return err
	}
	v.Count(func(s *kv.ServerStats) {
		if s.Failures++; kv.TimedOut(err) {
			s.Timeouts++
		}
	})
	if unreachable(err) {
		v.health.fail(begun, err)
	}
	return v.named(err)
}

// roundTrip runs request over a connection, once. Without a whole answer the connection is of no more use: what is left
// of the answer may still come.
func (l *lane) roundTrip(until time.Time, request func(*wire) error) error {
	l.server.Count(func(s *kv.ServerStats) { s.RoundTrips++ })
	c, err := l.conn(until)
	if err != nil {
		return err
	}
	_ = c.nc.SetDeadline(until)
	if err = request(c.wire); !kv.Answered(err) {
		c.abort()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, c)
	return err
}

// conn returns the connection that was used last, or a new one. The others then idle until they are stale, so a lane
// keeps as few connections in use as its load takes.
func (l *lane) conn(until time.Time) (*conn, error) {
	l.mu.Lock()
	if n := len(l.idle); n > 0 {
		c := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		return c, nil
	}
	l.mu.Unlock()
	return l.server.dial(until)
}

// close closes the connections that idle.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.idle {
		c.nc.Close()
	}
	l.idle = nil
}

// abort closes a connection over which a request may still be on its way: the kernel throws away what it has not sent,
// instead of sending it repeatedly until the network is back, when it would be too late.
func (c *conn) abort() {
	nc := c.nc
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.nc.Close()
}
