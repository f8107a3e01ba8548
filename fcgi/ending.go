package fcgi

import (
	"bytes"
	"errors"
	"io"
	"os"
	"time"
)

// How long a web server is waited for that has been asked to close its conn. Where another conn waits for its place it is
// shorter.
const (
	closeTimeout  = 500 * time.Millisecond
	retireTimeout = 100 * time.Millisecond
)

// askToClose ends the wait for the next request of a kept conn, and loses none that is on its way. To close the conn, or
// one side of it, would lose what the web server is just sending, and it does not send a POST again. So the web server
// has to close first. FastCGI has no record for that, but nginx and HAProxy close an idle conn on which anything comes.
// An empty stderr record of a request that is over does not disturb them if a request of theirs is faster.
//
// It returns what has come, or os.ErrDeadlineExceeded if nothing has and the conn is to be closed.
func (c *Conn) askToClose() (n int, err error) {
	n, err = c.lookNow(c.buf.space())
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.looksFirst || !c.beginAsking() {
		return n, err
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(breakTimeout))
	_ = c.write(AppendRecord(nil, TypeStderr, c.lastID, nil)) // one that has gone is noticed by look
	_ = c.nc.SetWriteDeadline(time.Time{})
	n, err = c.look(c.buf.space())
	if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF // it may be a reset, as the record is unread
	}
	return n, err
}

// beginAsking bounds the wait for the web server to close, and reports whether there is time left for it. Requests that
// come meanwhile do not make it longer, so that a web server that never closes cannot keep the conn for good.
func (c *Conn) beginAsking() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.askedUntil.IsZero() {
		timeout := closeTimeout
		if c.retired {
			timeout = retireTimeout
		}
		c.askedUntil = time.Now().Add(timeout)
	}
	if !time.Now().Before(c.askedUntil) {
		return false
	}
	c.asking = true
	return c.nc.SetReadDeadline(c.askedUntil) == nil
}

// looksFirst reports whether the web server of a request looks for the end of a kept conn before it sends the next one,
// and for nothing else, as Apache does. Such a conn is just closed: a record that comes before the end would hide it.
func looksFirst(params Params) bool {
	return bytes.Contains(params.Get("SERVER_SOFTWARE"), []byte("Apache"))
}
