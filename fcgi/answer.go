package fcgi

import (
	"errors"
	"time"
)

// Answer is a response that the gate gives itself, in PHP-FPM's place.
type Answer struct {
	Header []byte // CGI response header lines, each with its \r\n, without the empty line that ends them
	Body   []byte // left out of the answer to a HEAD request by the caller
	Stderr string // a line for the web server's error log; empty is none
}

// answerTimeout bounds how long the web server may take to accept an answer of the gate's own.
const answerTimeout = 5 * time.Second

// Respond answers the request without PHP-FPM and ends it.
func (r *Request) Respond(a Answer) error {
	r.stopWatching()
	var b []byte
	b = AppendStream(b, TypeStderr, r.ID, []byte(a.Stderr))
	b = AppendStream(b, TypeStdout, r.ID, append(append(a.Header[:len(a.Header):len(a.Header)], "\r\n"...), a.Body...))
	b = AppendRecord(b, TypeStdout, r.ID, nil)
	b = AppendEndRequest(b, r.ID, 0, StatusRequestComplete)
	if err := r.conn.nc.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if err := r.conn.write(b); err != nil {
		return err
	}
	if err := r.conn.nc.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := r.takeStdin(); err != nil {
		return err
	}
	r.finish()
	return nil
}

// finish leaves the conn ready for the next request, where that can be. A stdin that has not come whole by now
// leaves it unfit: nobody knows whether the web server goes on sending it.
func (r *Request) finish() {
	c := r.conn
	c.kept = true
	c.buf.n = copy(c.buf.b, r.rest)
	if !r.stdin.whole() {
		c.spoilt = true
	}
}

// Reusable says, once the request is over, whether the conn can serve another one.
func (r *Request) Reusable() bool {
	return r.KeepConn && !r.conn.spoilt && !r.HungUp() && !r.conn.shuttingDown()
}

// stopWatching gives the conn back to its reader.
func (r *Request) stopWatching() {
	if r.hangUp.conn != nil {
		r.hangUp.stop()
	}
}

// refusal is what a web server gets for a request that cannot be served: the reason on stderr, and an end
// request with the protocol status of the specification.
func refusal(id uint16, reason error) []byte {
	status := StatusRequestComplete
	switch {
	case errors.Is(reason, ErrUnknownRole):
		status = StatusUnknownRole
	case errors.Is(reason, ErrParamsTooLarge):
		status = StatusOverloaded
	}
	b := AppendStream(nil, TypeStderr, id, []byte("fpm-gate: "+reason.Error()+"\n"))
	return AppendEndRequest(b, id, 1, status)
}
