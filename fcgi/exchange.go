package fcgi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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

// RoundTrip sends x.Request to PHP-FPM and relays the response. ctx bounds only the wait for a connection; it is
// ignored afterwards. If PHP-FPM closed a pooled connection before it read the request, RoundTrip sends the request
// once more over a fresh one.
//
// It returns ErrHungUp when the web server has hung up and the script has ended since.
func (p *Pool) RoundTrip(ctx context.Context, x *Exchange) error {
	x.pool = p
	x.inHeader = true
	up, err := x.prepare(ctx)
	defer x.Request.conn.setExchange(nil)
	if err == nil && x.Sending != nil {
		if err := x.Sending(); err != nil {
			p.put(up, !up.announced)
			return err
		}
	}
	defer func() {
		if !x.Follows() {
			x.end()
		}
	}()
	if err != nil {
		return err
	}
	defer x.freeUpstream(false)
	x.buildHead()
	err = x.attempt(up)
	if errors.Is(err, errClosedUnread) {
		p.countRetry()
		if up, err = x.reconnect(); err == nil {
			err = x.attempt(up)
		}
	}
	return err
}

// reconnect gets a connection in the place of one that was closed unread. As the request's context is over by now,
// Abort ends the wait.
func (x *Exchange) reconnect() (*upstream, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	x.mu.Lock()
	x.giveUp = cancel
	if x.aborted != nil {
		cancel(x.aborted)
	}
	x.mu.Unlock()
	up, err := x.pool.redial(ctx, x.takeUpstream())
	return x.announced(ctx, up, err)
}

// prepare takes what of stdin came with the head, and gets a connection.
func (x *Exchange) prepare(ctx context.Context) (*upstream, error) {
	r := x.Request
	if r.conn.setExchange(x) {
		return nil, ErrKilled
	}
	if x.Late != nil {
		r.leaveStdin()
		x.back.left = max(x.ContentLength-1, 0)
	} else if !r.stdinTaken {
		forward, err := r.takeStdin()
		if err != nil {
			return nil, err
		}
		x.stdin = len(forward)
	}
	if r.stdin.aborted { // before it has begun
		r.gone = true
		r.endAborted()
		return nil, ErrHungUp
	}
	up, err := x.pool.get(ctx)
	return x.announced(ctx, up, err)
}

// buildHead puts together what goes out first: the head, with x.Params in records of their own before the end of
// the params stream, and what came with it. Bytes that came together go on together, because some FastCGI
// applications take a whole small request with one read. It works in the conn's buffer.
func (x *Exchange) buildHead() {
	r := x.Request
	c := r.conn
	records := appendParams(nil, r.ID, x.Params)
	c.makeRoom(len(records))
	b := c.buf.b
	end := r.head - r.ending
	copy(b[end+len(records):], b[end:c.buf.n])
	copy(b[end:], records)
	c.buf.n += len(records)
	r.head += len(records)
	x.out = b[:r.head+x.stdin]
}

// attempt sends the request over one connection, and relays the response.
func (x *Exchange) attempt(up *upstream) error {
	if err := x.setUpstream(up); err != nil {
		return err
	}
	x.Request.stopWatching()
	if x.Request.HungUp() {
		return ErrHungUp
	}
	if err := x.send(); err != nil {
		return err
	}
	if x.Sent != nil && x.Late == nil && x.Request.stdin.whole() {
		x.Sent()
	}
	x.client.start(x)
	return x.classify(x.relay())
}

// send writes what goes out first, under an id that no earlier request of the connection had.
func (x *Exchange) send() error {
	up, out := x.up, x.out
	if up.announced {
		up.announced, out = false, out[x.Request.begin:]
	} else {
		x.setKeepConn(out, up)
		up.nextID()
		x.pool.sent(up)
	}
	x.Request.stdin.id = up.id
	setRequestIDs(out, up.id)
	n, err := up.nc.Write(out)
	if err != nil && n == 0 && (up.reused || x.announces(up)) {
		return fmt.Errorf("send request: %w: %w", errClosedUnread, err)
	}
	// After any other error PHP-FPM may have answered without reading all of it: its answer decides.
	return nil
}

// setKeepConn sets whether PHP-FPM is to keep up open, in a begin request.
func (x *Exchange) setKeepConn(begin []byte, up *upstream) {
	begin[flagsOffset] &^= flagKeepConn
	if x.pool.keeps(up) || x.Follow != nil { // else PHP-FPM ends the connection at fastcgi_finish_request()
		begin[flagsOffset] |= flagKeepConn
	}
}

// relay passes the response on, whole record by whole record, until end request has been passed on. After the
// web server has hung up it goes on reading, and passes nothing on; see cutOff.
func (x *Exchange) relay() error {
	b := newBuffer(middleBuffer)
	defer func() { b.free() }()
	read := x.up.readAnswer
	for {
		waiting := time.Now()
		n, err := read(b.space())
		if n == 0 {
			return err
		}
		x.rhythm.count(time.Since(waiting))
		x.client.late.settle()
		read = x.up.nc.Read
		b.n += n
		x.pool.answered(x.up)
		whole, end, err := x.measure(b)
		if err != nil {
			return err
		}
		if end > 0 {
			return x.passEnd(&b, whole, end)
		}
		if whole > 0 {
			whole = x.readHeader(&b, whole, false)
			if err := x.pass(b.b[:whole]); err != nil {
				return err
			}
			b.drop(whole)
		}
		if x.client.isGone() {
			x.cutOff()
		}
		if b.n == len(b.b) || n > middleBuffer/2 {
			b = b.grown(max(largeBuffer, b.n+1)) // a header block that is kept back can fill the largest
		}
	}
}

// measure returns how many bytes of b are whole records that can be passed on; and, if an end request follows
// them, where that ends, else 0. It gives the records the id that the web server knows. Those of an earlier request
// of the connection, whose script went on after its response, it takes out.
func (x *Exchange) measure(b *buffer) (whole, end int, err error) {
	for b.n-whole >= headerLen {
		rest := b.bytes()[whole:]
		h := ParseHeader(rest)
		late, err := x.checkResponse(h)
		if err != nil {
			return 0, 0, err
		}
		if len(rest) < h.Len() {
			break
		}
		if late {
			x.late = true
			b.cut(whole, h.Len())
			continue
		}
		setRequestID(rest, x.Request.ID)
		if h.Type == TypeEndRequest {
			return whole, whole + h.Len(), nil
		}
		whole += h.Len()
	}
	return whole, 0, nil
}

// checkResponse checks a record of PHP-FPM by its header, and reports whether it belongs to an earlier request of the
// connection.
func (x *Exchange) checkResponse(h Header) (late bool, err error) {
	if err := h.check(); err != nil {
		return false, err
	}
	if h.RequestID != x.up.id && !x.up.hadID(h.RequestID) {
		return false, fmt.Errorf("%w: response of request %d, want %d", ErrMalformed, h.RequestID, x.up.id)
	}
	switch {
	case h.Type == TypeStdout || h.Type == TypeStderr:
	case h.Type == TypeEndRequest && h.ContentLength == endBodyLen:
	default:
		return false, fmt.Errorf("%w: record of type %d with %d bytes in a response", ErrMalformed, h.Type, h.ContentLength)
	}
	return h.RequestID != x.up.id, nil
}

// pass sends whole records to the web server. It notices here, or client does, that the web server has
// hung up. It returns an error when Abort has interrupted it, maybe in the middle of a record.
func (x *Exchange) pass(b []byte) error {
	if len(b) == 0 || x.client.isGone() {
		return nil
	}
	x.passed = true
	err := x.Request.conn.write(b)
	if err == nil {
		return nil
	}
	if x.interrupted() != nil {
		return err
	}
	x.client.onGone()
	return nil
}

// interrupted is the cause of an Abort while the connection to PHP-FPM was in use; nil: there was none.
func (x *Exchange) interrupted() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.up == nil {
		return nil
	}
	return x.aborted
}

// passEnd ends the response. If the script has ended too, its connection and its lock are free again before the web
// server gets the end, so that a browser that has its response never waits for its own lock.
func (x *Exchange) passEnd(b **buffer, whole, end int) error {
	rest := end - whole
	after := append([]byte(nil), (*b).bytes()[end:]...) // output that came after the end request
	whole = x.readHeader(b, whole, true)
	x.client.stop()
	x.finished = true
	idle := x.client.whole.Load() && x.up.workerIdle()
	if idle || x.Follow == nil || !x.Follow() {
		x.freeUpstream(idle && len(after) == 0 && !x.late && x.client.clean())
		x.end()
	} else {
		x.follow(after)
	}
	return x.pass((*b).b[:whole+rest])
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

// classify returns the error of a request whose relay ended with err. A request that can still be answered is left to
// its caller; a conn that got part of a response is truncated.
func (x *Exchange) classify(err error) error {
	x.client.stop()
	r := x.Request
	switch {
	case x.client.isGone():
		return x.afterHangUp(err)
	case x.finished && err == nil:
		r.finish()
		return x.client.err
	case x.closedUnread(err):
		return fmt.Errorf("read response: %w", errClosedUnread)
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	x.mu.Lock()
	if x.aborted != nil {
		err = x.aborted
	}
	x.mu.Unlock()
	x.end()
	if !x.passed {
		return fmt.Errorf("%w: read response: %w", ErrUpstream, err)
	}
	r.conn.Truncate()
	return fmt.Errorf("%w: read response: %w", ErrTruncated, err)
}

// closedUnread reports whether the request can safely be sent again. A worker that reads no more
// requests on its pooled connection ends it with a clean end of file, whatever was sent. A worker that dies at
// work leaves bytes unread, at the least the end of stdin, and that shows as a reset; unless that end has not been
// sent yet.
func (x *Exchange) closedUnread(err error) bool {
	return err == io.EOF && x.up.reused && !x.up.answered && !x.client.forwarded &&
		x.Request.stdin.whole() && x.Late == nil
}
