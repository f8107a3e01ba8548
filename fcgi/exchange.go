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
// called Pool.Exchange.
type Exchange struct {
	Request *Request
	// Params are name-value pairs, as of AppendPair, that are sent after the request's own, so that they win. Each
	// of them must fit in a record. Sending may set them.
	Params []byte
	// Sending is called when there is a connection, before the request is sent. If it returns an error, nothing is
	// sent, Exchange returns that error without a call of Ended, and the Exchange can be used again. Nil: the
	// request is sent in any case.
	Sending func() error
	// Sent is called, once and by any goroutine, when PHP-FPM has been sent all of the request: PHP runs no script
	// before that. Nil: it is not called.
	Sent func()
	// Late, unless nil, is called when PHP-FPM has been sent all of the request but the last byte of its body, so that
	// PHP runs the script only when it has returned; or when no more of the body comes. It is called by a goroutine of
	// the exchange's, at most once, and is over before Header, Ended and Exchange's return. Its context is done when
	// the exchange ends, or PHP-FPM responds early: PHP runs the script without its body where CONTENT_LENGTH is more
	// than post_max_size, with a part of it where multipart/form-data is malformed, and enable_post_data_reading=0 has it
	// do so at once.
	Late func(context.Context)
	// ContentLength is how many bytes of stdin PHP reads before it runs the script. Late needs it.
	ContentLength int64
	// Header is called with the header block of the response, before the web server gets it; not at all where
	// there is none, or none that is whole within 64 KiB. Nil: nobody wants to see it.
	Header func(*ResponseHeader)
	// Ended is called once: when the script has ended and before the web server gets its end request, or when the
	// script can no longer be observed. Nil: it is not called.
	Ended func()
	// Follow is called when the response has ended and its script may go on, as after fastcgi_finish_request(). If
	// it returns true, the script is followed: the caller must call AwaitScript when Exchange has returned, and
	// Ended is called by that. Nil: a script has ended when its response has.
	Follow func() bool
	// HungUp is called, once and by any goroutine, when the web server has hung up while the script runs. It must not
	// block. Nil: it is not called.
	HungUp func()
	// AbandonAfter bounds how long a script is waited for after the web server has hung up. Over TCP the end of one
	// that goes on to print cannot be seen: it fails at its next output, and Ended is called when that should have come.
	AbandonAfter time.Duration

	pool     *Pool
	kept     keeping    // comes before mu
	mu       sync.Mutex // guards up, since, aborted, followed and cut against Abort, Connected, Unfollow and the feed
	up       *upstream  // nil before it is there, and once it has been given back
	since    time.Time  // when it was there
	aborted  error
	followed *upstream // of a script that goes on after its response
	after    []byte    // what of that has been read from it, after the end request
	left     bool      // Unfollow has been called
	feed     feed
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

// Errors of Pool.Exchange, beside those of Pool and the context's.
var (
	// ErrUpstream is that of a request whose connection to PHP-FPM failed, or did not speak FastCGI, before the
	// web server got anything of a response: it can still be answered.
	ErrUpstream = errors.New("PHP-FPM failed")
	// ErrBroken is that of a response that was cut short. The conn to the web server has been broken too.
	ErrBroken = errors.New("the response is cut short")
	// ErrAbandoned is that of a request whose web server hung up and whose script did not end in AbandonAfter, or
	// before Abort.
	ErrAbandoned = errors.New("the script was abandoned")

	// errClosedUnread is that of a pooled connection that PHP-FPM had closed before it read the request.
	errClosedUnread = errors.New("the connection had been closed")
)

// Exchange sends x.Request to PHP-FPM and relays the response. It waits for a connection as long as ctx
// allows, which has no meaning after that. If a pooled connection turns out to have been closed by PHP-FPM
// before it took the request, the request is sent once more over a fresh one.
//
// ErrHungUp says that the web server hung up and that the script has ended since.
func (p *Pool) Exchange(ctx context.Context, x *Exchange) error {
	x.pool = p
	x.inHeader = true
	up, err := x.prepare(ctx)
	defer x.Request.conn.setExchange(nil)
	if err == nil && x.Sending != nil {
		if err := x.Sending(); err != nil {
			p.put(up, true)
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
	x.compose()
	err = x.attempt(up)
	if errors.Is(err, errClosedUnread) {
		p.countRetry()
		if up, err = p.redial(ctx, x.takeUpstream()); err == nil {
			err = x.attempt(up)
		}
	}
	return err
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
	return x.pool.get(ctx)
}

// compose puts together what goes out first: the head, with x.Params in records of their own before the end of
// the params stream, and what came with it. Bytes that came together go on together, because some FastCGI
// applications take a whole small request with one read. It works in the conn's buffer.
func (x *Exchange) compose() {
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
	x.feed.start(x)
	return x.judge(x.relay())
}

// send writes what goes out first, under an id that no earlier request of the connection had.
func (x *Exchange) send() error {
	up := x.up
	x.out[flagsOffset] &^= flagKeepConn
	if x.pool.keeps(up) || x.Follow != nil { // else PHP-FPM ends the connection at fastcgi_finish_request()
		x.out[flagsOffset] |= flagKeepConn
	}
	x.Request.stdin.id = up.nextID()
	setRequestIDs(x.out, up.id)
	x.pool.sent(up)
	n, err := up.nc.Write(x.out)
	if err != nil && n == 0 && up.reused {
		return fmt.Errorf("send request: %w: %w", errClosedUnread, err)
	}
	// After any other error PHP-FPM may have answered without reading all of it: the answer tells.
	return nil
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
		x.feed.late.settle()
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
		if x.feed.hungUp() {
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

// checkResponse judges a record of PHP-FPM by its header, and reports whether it belongs to an earlier request of the
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

// pass sends whole records to the web server. That it has hung up is found here, or by the feed. An error says that
// Abort has interrupted it, maybe in the middle of a record.
func (x *Exchange) pass(b []byte) error {
	if len(b) == 0 || x.feed.hungUp() {
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
	x.feed.hangUp()
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
// server learns it, so that a browser that has its response never waits for its own lock.
func (x *Exchange) passEnd(b **buffer, whole, end int) error {
	rest := end - whole
	after := append([]byte(nil), (*b).bytes()[end:]...) // output that came after the end request
	whole = x.readHeader(b, whole, true)
	x.feed.stop()
	x.finished = true
	idle := x.feed.whole.Load() && x.up.workerIdle()
	if idle || x.Follow == nil || !x.Follow() {
		x.freeUpstream(idle && len(after) == 0 && !x.late && x.feed.clean())
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

// Abort ends the exchange, from any goroutine. Its error will be the first cause. A response that has begun is broken.
// An exchange that has ended is left alone.
func (x *Exchange) Abort(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.aborted = cmp.Or(x.aborted, cause)
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

// judge says how a request ended whose relay ended with err. One that can still be answered is left to be
// answered, and a conn that got part of a response is broken.
func (x *Exchange) judge(err error) error {
	x.feed.stop()
	r := x.Request
	switch {
	case x.feed.hungUp():
		return x.afterHangUp(err)
	case x.finished && err == nil:
		r.finish()
		return x.feed.err
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
	r.conn.Break()
	return fmt.Errorf("%w: read response: %w", ErrBroken, err)
}

// closedUnread says whether the request can be sent again without any doubt. A worker that reads no more
// requests on its pooled connection ends it with a clean end of file, whatever was sent. A worker that dies at
// work leaves bytes unread, at the least the end of stdin, and that shows as a reset; unless that end has not been
// sent yet.
func (x *Exchange) closedUnread(err error) bool {
	return err == io.EOF && x.up.reused && !x.up.answered && !x.feed.forwarded && x.Request.stdin.whole() && x.Late == nil
}
