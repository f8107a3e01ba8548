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

// Fail ends the request without a response, so that closing the conn is to the web server as if PHP-FPM had refused or
// dropped it. A line on stderr would say why, but HAProxy 2.6 crashes over one without a response.
func (r *Request) Fail() {
	r.stopWatching()
	r.conn.spoilt = true
}

// OnKeptConn reports whether the conn has served a request before this one. If such a conn ends without a response, a
// web server may send the request again.
func (r *Request) OnKeptConn() bool { return r.conn.kept }

// endAborted ends a request that the web server has aborted.
func (r *Request) endAborted() {
	_ = r.conn.write(AppendEndRequest(nil, r.ID, 0, StatusRequestComplete))
}

// finish leaves the conn ready for the next request. Where PHP-FPM has answered without all of stdin, as it does
// when nothing but its end is missing, Next passes over what still comes of it; and a conn that is closed
// instead has to be closed gently.
func (r *Request) finish() {
	_ = r.conn.take() // an error is one of the conn's next reader, too
	if r.KeepConn && !r.conn.kept {
		r.conn.looksFirst = looksFirst(r.Params)
	}
	r.conn.kept, r.conn.lastID = true, r.ID
	if !r.stdin.whole() {
		r.conn.spoilt = true
	}
}

// Reusable reports, once the request is over, whether the conn can serve another one. It cannot in the middle of a
// record of this one. After Shutdown it can too: the web server may have sent a request by now.
func (r *Request) Reusable() bool {
	return r.KeepConn && (r.stdin.left == 0 || r.stdin.keep) && !r.HungUp()
}

// stopWatching gives the conn back to its reader.
func (r *Request) stopWatching() {
	if r.hangUp != nil {
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
