package fcgi

import (
	"context"
	"errors"
	"time"
)

// Exchange relays one request to PHP-FPM and its response back. The hooks are called by the goroutine that
// called Pool.RoundTrip.
type Exchange struct {
	Request *Request
	// Params are name-value pairs, as of AppendPair, that are sent after the request's own, so that they win. Each
	// of them must fit in a record. Sending may set them.
	Params []byte
	// Sending is called when there is a connection, before the request is sent. If it returns an error, nothing is
	// sent, RoundTrip returns that error without a call of Ended, and the Exchange can be used again. Nil: the
	// request is sent in any case.
	Sending func() error
	// Sent is called, once and by any goroutine, when PHP-FPM has been sent all of the request: PHP runs no script
	// before that. Nil: it is not called.
	Sent func()
	// Late, unless nil, is called when PHP-FPM has been sent all of the request but the last byte of its body, so that
	// PHP runs the script only when it has returned; or when no more of the body comes. It is called by a goroutine of
	// the exchange's, at most once, and is over before Header, Ended and RoundTrip's return. Its context is done when
	// the exchange ends, or PHP-FPM responds early: PHP runs the script without its body where CONTENT_LENGTH is more
	// than post_max_size, with a part of it where multipart/form-data is malformed, and enable_post_data_reading=0 has it
	// do so at once.
	Late func(context.Context)
	// ContentLength is how many bytes of stdin PHP reads before it runs the script. Late needs it.
	ContentLength int64
	// Header is called with the header block of the response, before the web server gets it; not at all where
	// there is none, or none that is whole within 64 KiB. Nil: it is not called.
	Header func(*ResponseHeader)
	// Ended is called once: when the script has ended and before the web server gets its end request, or when the
	// script can no longer be observed. Nil: it is not called.
	Ended func()
	// Follow is called when the response has ended and its script may go on, as after fastcgi_finish_request(). If
	// it returns true, the script is followed: the caller must call AwaitScript when RoundTrip has returned, and
	// Ended is called by that. Nil: a script has ended when its response has.
	Follow func() bool
	// OnHangUp is called, once and by any goroutine, when the web server has hung up while the script runs. It must not
	// block. Nil: it is not called.
	OnHangUp func()
	// AbandonAfter bounds how long a script is waited for after the web server has hung up. Over TCP the end of one
	// that goes on to print cannot be seen: it fails at its next output, and Ended is called when that should have come.
	AbandonAfter time.Duration

	pool      *Pool
	link      link
	client    clientReader
	orphan    orphan
	following *following // nil: there is nothing to follow
	stdin     int        // how many bytes of stdin came with the head
	out       []byte     // what goes out first, kept to be sent again
	inHeader  bool       // the header block has not been dealt with
	passed    bool       // the web server has got some of the response, more than stderr
	late      bool       // output of an earlier request has been dropped
	finished  bool       // end request has come
	ended     bool       // Ended has been called
}

// Errors of Pool.RoundTrip, in addition to those of Pool and the context's.
var (
	// ErrUpstream is returned when the connection to PHP-FPM failed, or did not speak FastCGI, before the web server
	// got anything of a response but stderr: the request can still be answered.
	ErrUpstream = errors.New("PHP-FPM failed")
	// ErrTruncated is returned when a response was cut short. The conn has been truncated too; see Conn.Truncate.
	ErrTruncated = errors.New("the response is cut short")
	// ErrAbandoned is returned when the web server hung up and the script did not end within AbandonAfter, or before
	// Abort.
	ErrAbandoned = errors.New("the script was abandoned")

	// errClosedUnread is returned when PHP-FPM had closed a pooled connection before it read the request.
	errClosedUnread = errors.New("the connection had been closed")
)

// StdinWhole reports, to Sending, whether all of the request is there.
func (x *Exchange) StdinWhole() bool { return x.Request.stdin.whole() }

// Connected is when the request had its connection to PHP-FPM; the zero time before that. Any goroutine may ask.
func (x *Exchange) Connected() time.Time { return x.link.connected() }

// Serving returns the connection that serves the request now, or whose script is followed after its response. It
// returns false if there is none. Any goroutine may call it.
func (x *Exchange) Serving() (Serving, bool) { return x.link.serving() }

// Abort ends the exchange, from any goroutine. Its error will be the first cause. A response that has begun is
// truncated. An exchange that has ended is left alone.
func (x *Exchange) Abort(cause error) { x.link.abort(cause) }

// RespondedEarly reports whether PHP-FPM responded before Late was due: PHP did not read the whole body before it ran
// the script. It may be called when RoundTrip has returned.
func (x *Exchange) RespondedEarly() bool { return x.client.late.respondedEarly() }

// Follows reports whether Follow has returned true: AwaitScript must be called.
func (x *Exchange) Follows() bool { return x.following != nil }

// AwaitScript waits until the script that goes on after its response has ended, or until Unfollow, and then calls
// Ended. The Request may be invalid by then. What the script prints is dropped.
func (x *Exchange) AwaitScript() {
	defer x.end()
	x.following.await()
}

// Unfollow ends AwaitScript, from any goroutine. PHP-FPM finds the connection closed at the script's next output, as
// if it had been closed by fastcgi_finish_request().
func (x *Exchange) Unfollow() { x.link.leave() }

// end calls Ended, once.
func (x *Exchange) end() {
	if !x.ended && x.Ended != nil {
		x.Ended()
	}
	x.ended = true
}

// freeUpstream gives the connection back, if that has not been done.
func (x *Exchange) freeUpstream(reusable bool) {
	if up := x.link.take(); up != nil {
		x.pool.put(up, reusable && x.link.cause() == nil)
	}
}

// setKeepConn sets whether PHP-FPM is to keep up open, in a begin request.
func (x *Exchange) setKeepConn(begin []byte, up *upstream) {
	begin[flagsOffset] &^= flagKeepConn
	if x.pool.keeps(up) || x.Follow != nil { // else PHP-FPM ends the connection at fastcgi_finish_request()
		begin[flagsOffset] |= flagKeepConn
	}
}
