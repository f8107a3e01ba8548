package fcgi

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

// How long to wait for a web server that has been asked to close its conn. On a busy machine it may get no CPU for a
// second, with a request in its hands, so while nothing is held up the wait is long. It is shorter if the time for a
// shutdown is over, or if another conn waits for the place.
const (
	shutdownTimeout = 500 * time.Millisecond
	retireTimeout   = 100 * time.Millisecond
)

// closeTimeout is the long one. Tests shorten it.
var closeTimeout = 5 * time.Second

// askToClose ends the wait for the next request of a kept conn without losing one that is on its way. Closing the conn,
// or one side of it, would lose what the web server is just sending, and web servers do not resend a POST. So the web
// server must close first. FastCGI has no record for that, but nginx and HAProxy close an idle conn on which anything
// arrives. An empty stderr record of an ended request does not disturb them if they are just sending a request.
//
// It returns what has come, or os.ErrDeadlineExceeded if nothing has come and the conn is to be closed.
func (c *Conn) askToClose() (n int, err error) {
	n, err = c.in.lookNow(c.buf.space())
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.looksFirst || !c.beginAsking() {
		return n, err
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(truncateTimeout))
	_ = c.write(AppendRecord(nil, TypeStderr, c.lastID, nil)) // look notices a web server that has gone
	_ = c.nc.SetWriteDeadline(time.Time{})
	n, err = c.in.look(c.buf.space())
	if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF // it may be a reset, because the record is unread
	}
	return n, err
}

// beginAsking bounds the wait for the web server to close, and reports whether there is time left. Requests that come
// in the meantime do not extend it, so that a web server that never closes cannot keep the conn forever.
func (c *Conn) beginAsking() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := time.Now().Add(c.askTimeout()); c.askedUntil.IsZero() || until.Before(c.askedUntil) {
		c.askedUntil = until
	}
	if !time.Now().Before(c.askedUntil) {
		return false
	}
	c.asking = true
	return c.nc.SetReadDeadline(c.askedUntil) == nil
}

// askTimeout returns how long to wait for the web server to close, from now on. The caller must hold the mutex.
func (c *Conn) askTimeout() time.Duration {
	switch {
	case c.retired:
		return retireTimeout
	case c.endWaiters:
		return shutdownTimeout
	}
	return closeTimeout
}

// endIdleWait interrupts fill if the conn is idle. If the web server has been asked to close already, it shortens the
// wait for that. The caller must hold the mutex.
func (c *Conn) endIdleWait() {
	switch until := time.Now().Add(c.askTimeout()); {
	case !c.idle:
	case !c.asking:
		_ = c.nc.SetReadDeadline(past)
	case until.Before(c.askedUntil):
		c.askedUntil = until
		_ = c.nc.SetReadDeadline(until)
	}
}

// looksFirst reports whether the web server of a request checks only for the end of a kept conn before it sends the
// next request, as Apache does. Such a conn is simply closed: a record before the end would hide the end.
func looksFirst(params Params) bool {
	return bytes.Contains(params.Get("SERVER_SOFTWARE"), []byte("Apache"))
}
