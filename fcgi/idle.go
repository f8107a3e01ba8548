package fcgi

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
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

// idling is the time of a kept conn between two requests. Its read deadline ends it, and other goroutines may set that:
// shutDown and retire, unless the first byte of the next request has been read.
type idling struct {
	in         *input
	lastID     uint16 // of the last request served
	looksFirst bool   // see looksFirst

	mu         sync.Mutex
	idles      bool // between begin and end
	since      time.Time
	asking     bool      // the web server has been asked to close
	askedUntil time.Time // how long to wait for that; zero: the conn is not to end
	retired    bool
	shutdown   bool
	timeIsOver bool // for the shutdown
}

// begin begins a wait for the next request, of at most timeout; zero: without end.
func (i *idling) begin(timeout time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.idles, i.since = true, time.Now()
	if i.shutdown || i.retired {
		return i.in.nc.SetReadDeadline(past)
	}
	i.askedUntil = time.Time{}
	return i.in.nc.SetReadDeadline(deadline(timeout))
}

// end ends the wait, as something has come, or nothing will.
func (i *idling) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.idles, i.asking = false, false
}

// askToClose ends the wait without losing a request that is on its way. Closing the conn, or one side of it, would lose
// what the web server is just sending, and web servers do not resend a POST. So the web server must close first.
// FastCGI has no record for that, but nginx and HAProxy close an idle conn on which anything arrives. An empty stderr
// record of an ended request does not disturb them if they are just sending a request.
//
// It reads what has come into b, or returns os.ErrDeadlineExceeded if nothing has come and the conn is to be closed.
func (i *idling) askToClose(b []byte) (n int, err error) {
	n, err = i.in.lookNow(b)
	if !errors.Is(err, os.ErrDeadlineExceeded) || i.looksFirst || !i.beginAsking() {
		return n, err
	}
	nc := i.in.nc
	_ = nc.SetWriteDeadline(time.Now().Add(truncateTimeout))
	_, _ = nc.Write(AppendRecord(nil, TypeStderr, i.lastID, nil)) // look notices a web server that has gone
	_ = nc.SetWriteDeadline(time.Time{})
	n, err = i.in.look(b)
	if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF // it may be a reset, because the record is unread
	}
	return n, err
}

// beginAsking bounds the wait for the web server to close, and reports whether there is time left. Requests that come
// in the meantime do not extend it, so that a web server that never closes cannot keep the conn forever.
func (i *idling) beginAsking() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if until := time.Now().Add(i.askTimeout()); i.askedUntil.IsZero() || until.Before(i.askedUntil) {
		i.askedUntil = until
	}
	if !time.Now().Before(i.askedUntil) {
		return false
	}
	i.asking = true
	return i.in.nc.SetReadDeadline(i.askedUntil) == nil
}

// askTimeout returns how long to wait for the web server to close, from now on. The caller must hold the mutex.
func (i *idling) askTimeout() time.Duration {
	switch {
	case i.retired:
		return retireTimeout
	case i.timeIsOver:
		return shutdownTimeout
	}
	return closeTimeout
}

// shutDown ends this wait, and those after it: soon if the time for the shutdown is over.
func (i *idling) shutDown(timeIsOver bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.shutdown = true
	i.timeIsOver = i.timeIsOver || timeIsOver
	i.interrupt()
}

// retire ends this wait, and those after it, and has the web server close the conn soon.
func (i *idling) retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.retired = true
	i.interrupt()
}

// interrupt ends the wait of the goroutine that reads. If the web server has been asked to close already, it shortens
// the wait for that. The caller must hold the mutex.
func (i *idling) interrupt() {
	switch until := time.Now().Add(i.askTimeout()); {
	case !i.idles:
	case !i.asking:
		_ = i.in.nc.SetReadDeadline(past)
	case until.Before(i.askedUntil):
		i.askedUntil = until
		_ = i.in.nc.SetReadDeadline(until)
	}
}

// isShutDown reports whether shutDown has been called.
func (i *idling) isShutDown() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.shutdown
}

// isRetired reports whether retire has been called.
func (i *idling) isRetired() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.retired
}

// began returns when the wait began, or the zero time if there is none.
func (i *idling) began() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.idles {
		return time.Time{}
	}
	return i.since
}

// looksFirst reports whether the web server of a request checks only for the end of a kept conn before it sends the
// next request, as Apache does. Such a conn is simply closed: a record before the end would hide the end.
func looksFirst(params Params) bool {
	return bytes.Contains(params.Get("SERVER_SOFTWARE"), []byte("Apache"))
}
