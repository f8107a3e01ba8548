package fcgi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
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

	pool     *Pool
	kept     keeping    // comes before mu
	mu       sync.Mutex // guards up, since, aborted, followed and cut against Abort, Connected, Unfollow and client
	up       *upstream  // nil before it is there, and once it has been given back
	since    time.Time  // when it was there
	aborted  error
	giveUp   context.CancelCauseFunc // ends the wait for another connection; nil: there has been none
	followed *upstream               // of a script that goes on after its response
	after    []byte                  // what of that has been read from it, after the end request
	left     bool                    // Unfollow has been called
	client   clientReader
	back     holdback
	stdin    int    // how many bytes of stdin came with the head
	out      []byte // what goes out first, kept to be sent again
	inHeader bool   // the header block has not been dealt with
	passed   bool   // the web server has got something of the response
	late     bool   // output of an earlier request has been dropped
	rhythm   rhythm // of the script's output, over TCP
	cut      bool   // the script has printed after the hang-up, over TCP; guarded by mu
	finished bool   // end request has come
	ended    bool   // Ended has been called
}

// Errors of Pool.RoundTrip, in addition to those of Pool and the context's.
var (
	// ErrUpstream is returned when the connection to PHP-FPM failed, or did not speak FastCGI, before the web server
	// got anything of a response: the request can still be answered.
	ErrUpstream = errors.New("PHP-FPM failed")
	// ErrTruncated is returned when a response was cut short. The conn has been truncated too; see Conn.Truncate.
	ErrTruncated = errors.New("the response is cut short")
	// ErrAbandoned is returned when the web server hung up and the script did not end within AbandonAfter, or before
	// Abort.
	ErrAbandoned = errors.New("the script was abandoned")

	// errClosedUnread is returned when PHP-FPM had closed a pooled connection before it read the request.
	errClosedUnread = errors.New("the connection had been closed")
)

// interrupted is the cause of an Abort while the connection to PHP-FPM was in use; nil: there was none.
func (x *Exchange) interrupted() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.up == nil {
		return nil
	}
	return x.aborted
}

// setUpstream makes up the exchange's connection, unless it has been aborted.
func (x *Exchange) setUpstream(up *upstream) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.up, x.since = up, time.Now()
	if x.aborted != nil {
		return fmt.Errorf("%w: %w", ErrUpstream, x.aborted)
	}
	return nil
}

// StdinWhole reports, to Sending, whether all of the request is there.
func (x *Exchange) StdinWhole() bool { return x.Request.stdin.whole() }

// Connected is when the request had its connection to PHP-FPM; the zero time before that. Any goroutine may ask.
func (x *Exchange) Connected() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.since
}

// freeUpstream gives the connection back, if that has not been done.
func (x *Exchange) freeUpstream(reusable bool) {
	if up := x.takeUpstream(); up != nil {
		x.pool.put(up, reusable && !x.isAborted())
	}
}

// takeUpstream takes the connection out of the reach of Abort. It returns nil if that has been done.
func (x *Exchange) takeUpstream() *upstream {
	x.kept.await()
	x.mu.Lock()
	defer x.mu.Unlock()
	up := x.up
	x.up = nil
	if x.aborted != nil && up != nil {
		_ = x.Request.conn.nc.SetWriteDeadline(time.Time{}) // what is passed on from now on, Abort leaves alone
	}
	return up
}

func (x *Exchange) isAborted() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.aborted != nil
}

// Abort ends the exchange, from any goroutine. Its error will be the first cause. A response that has begun is
// truncated. An exchange that has ended is left alone.
func (x *Exchange) Abort(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.aborted = cmp.Or(x.aborted, cause)
	if x.giveUp != nil {
		x.giveUp(cause)
	}
	if x.up != nil {
		_ = x.up.nc.SetDeadline(past)
		_ = x.Request.conn.nc.SetWriteDeadline(past) // of a web server that does not read
	}
}

// end calls Ended, once.
func (x *Exchange) end() {
	if !x.ended && x.Ended != nil {
		x.Ended()
	}
	x.ended = true
}

// RespondedEarly reports whether PHP-FPM responded before Late was due: PHP did not read the whole body before it ran
// the script. It may be called when RoundTrip has returned.
func (x *Exchange) RespondedEarly() bool {
	l := x.client.late
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.early
}

// keeping is held while a connection must go on serving its request.
type keeping struct{ sync.Mutex }

// await returns once the connection may serve another request.
func (k *keeping) await() {
	k.Lock()
	defer k.Unlock()
}

// setKeepConn sets whether PHP-FPM is to keep up open, in a begin request.
func (x *Exchange) setKeepConn(begin []byte, up *upstream) {
	begin[flagsOffset] &^= flagKeepConn
	if x.pool.keeps(up) || x.Follow != nil { // else PHP-FPM ends the connection at fastcgi_finish_request()
		begin[flagsOffset] |= flagKeepConn
	}
}
