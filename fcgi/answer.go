package fcgi

import "time"

// Answer is a response of the gate itself, in place of PHP-FPM's.
type Answer struct {
	Header []byte // CGI response header lines, each with its \r\n, without the empty line at the end
	Body   []byte // the caller must leave it out for a HEAD request
	Stderr string // a line for the web server's error log; "": none
}

// answerTimeout bounds how long the web server may take to accept an Answer.
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

// Fail ends the request without a response. When the conn is closed then, the web server sees what it would see if
// PHP-FPM had refused or dropped the connection. There is no line on stderr, because HAProxy 2.6 crashes on one without
// a response.
func (r *Request) Fail() {
	r.stopWatching()
	r.conn.lingers = true
}

// OnKeptConn reports whether the conn has served an earlier request. If such a conn ends without a response, a web
// server may send the request again.
func (r *Request) OnKeptConn() bool { return r.conn.kept }

// endAborted ends a request that the web server has aborted.
func (r *Request) endAborted() {
	_ = r.conn.write(AppendEndRequest(nil, r.ID, 0, StatusRequestComplete))
}

// finish prepares the conn for the next request. If PHP-FPM has answered before the end of stdin, as it does when only
// the end is missing, Next skips what still comes of it, and a conn that is closed instead must be closed gently.
func (r *Request) finish() {
	_ = r.conn.in.take() // the conn's next reader gets the error, too
	if r.KeepConn && !r.conn.kept {
		r.conn.idle.looksFirst = looksFirst(r.Params)
	}
	r.conn.kept, r.conn.idle.lastID = true, r.ID
	if !r.stdin.whole() {
		r.conn.lingers = true
	}
}

// Reusable reports, once the request has ended, whether the conn can serve another one. It cannot if a record of this
// one is incomplete. It can after Shutdown, because the web server may have sent a request by then.
func (r *Request) Reusable() bool {
	return r.KeepConn && (r.stdin.left == 0 || r.stdin.keep) && !r.HungUp()
}
