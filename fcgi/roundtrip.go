package fcgi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
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
	x.link.onAbort(cancel)
	up, err := x.pool.redial(ctx, x.link.take())
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
	if cause := x.link.set(up, x.Request.conn.nc); cause != nil {
		return fmt.Errorf("%w: %w", ErrUpstream, cause)
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
	x.startClient()
	return x.classify(x.relay())
}

// startClient starts what reads from the web server while PHP-FPM responds.
func (x *Exchange) startClient() {
	x.orphan.link, x.orphan.patience, x.orphan.onHangUp = &x.link, x.AbandonAfter, x.OnHangUp
	x.client = clientReader{request: x.Request, up: x.link.up, orphan: &x.orphan, onSent: x.Sent}
	if x.Late != nil {
		x.client.late = newLateCall(x.Late, x.ContentLength)
	}
	x.client.start()
}

// send writes what goes out first, under an id that no earlier request of the connection had.
func (x *Exchange) send() error {
	up, out := x.link.up, x.out
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

// relay passes the response on, whole record by whole record, until end request has been passed on. After the
// web server has hung up it goes on reading, and passes nothing on; see orphan.
func (x *Exchange) relay() error {
	b := newBuffer(middleBuffer)
	defer func() { b.free() }()
	read := x.link.up.readAnswer
	for {
		waiting := time.Now()
		n, err := read(b.space())
		if n == 0 {
			return err
		}
		x.orphan.rhythm.count(time.Since(waiting))
		x.client.late.settle()
		read = x.link.up.nc.Read
		b.n += n
		x.pool.answered(x.link.up)
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
			x.orphan.printed()
		}
		if b.n == len(b.b) || n > middleBuffer/2 {
			b = b.grown(max(largeBuffer, b.n+1)) // a header block that is kept back can fill the largest
		}
	}
}

// measure returns how many bytes of b are whole records that can be passed on; and, if an end request follows
// them, where that ends, else 0. Records of an earlier request of the connection, whose script went on after its
// response, it takes out. The others keep their ids: while the header block is incomplete, they are measured again.
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
	if h.RequestID != x.link.up.id && !x.link.up.hadID(h.RequestID) {
		return false, fmt.Errorf("%w: response of request %d, want %d", ErrMalformed, h.RequestID, x.link.up.id)
	}
	switch {
	case h.Type == TypeStdout || h.Type == TypeStderr:
	case h.Type == TypeEndRequest && h.ContentLength == endBodyLen:
	default:
		return false, fmt.Errorf("%w: record of type %d with %d bytes in a response", ErrMalformed, h.Type, h.ContentLength)
	}
	return h.RequestID != x.link.up.id, nil
}

// pass sends whole records to the web server, with the id that it knows. It notices here, or client does, that the web
// server has hung up. It returns an error when Abort has interrupted it, maybe in the middle of a record.
func (x *Exchange) pass(b []byte) error {
	if len(b) == 0 || x.client.isGone() {
		return nil
	}
	x.passed = x.passed || hasStdout(b)
	setRequestIDs(b, x.Request.ID)
	err := x.Request.conn.write(b)
	if err == nil {
		return nil
	}
	x.passed = true // maybe a part of a record
	if x.link.interrupted() != nil {
		return err
	}
	x.client.onGone()
	return nil
}

// hasStdout reports whether there is stdout among whole records. A response that has none can still be answered.
func hasStdout(b []byte) bool {
	for ; len(b) > 0; b = b[ParseHeader(b).Len():] {
		if ParseHeader(b).Type == TypeStdout {
			return true
		}
	}
	return false
}

// passEnd ends the response. If the script has ended too, its connection and its lock are free again before the web
// server gets the end, so that a browser that has its response never waits for its own lock.
func (x *Exchange) passEnd(b **buffer, whole, end int) error {
	rest := end - whole
	after := append([]byte(nil), (*b).bytes()[end:]...) // output that came after the end request
	whole = x.readHeader(b, whole, true)
	x.client.stop()
	x.finished = true
	idle := x.client.whole.Load() && x.link.up.workerIdle()
	if idle || x.Follow == nil || !x.Follow() {
		x.freeUpstream(idle && len(after) == 0 && !x.late && x.client.clean())
		x.end()
	} else {
		x.following = follow(&x.link, x.pool, after, x.client.whole.Load() && !x.client.unsent)
	}
	return x.pass((*b).b[:whole+rest])
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
	if cause := x.link.cause(); cause != nil {
		err = cause
	}
	x.end()
	if !x.passed {
		return fmt.Errorf("%w: read response: %w", ErrUpstream, err)
	}
	r.conn.Truncate()
	return fmt.Errorf("%w: read response: %w", ErrTruncated, err)
}

// afterHangUp waits at most AbandonAfter for the script of a web server that has hung up. err is the error of the
// relay.
func (x *Exchange) afterHangUp(err error) error {
	x.Request.gone = true
	if !x.finished {
		err = x.orphan.await(err)
	}
	if x.client.err != nil {
		return x.client.err
	}
	if cause := x.link.interrupted(); cause != nil {
		return fmt.Errorf("%w: %w", ErrAbandoned, cause)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w after %v", ErrAbandoned, x.AbandonAfter)
	}
	return ErrHungUp
}

// closedUnread reports whether the request can safely be sent again. A worker that reads no more
// requests on its pooled connection ends it with a clean end of file, whatever was sent. A worker that dies at
// work leaves bytes unread, at the least the end of stdin, and that shows as a reset; unless that end has not been
// sent yet.
func (x *Exchange) closedUnread(err error) bool {
	return err == io.EOF && x.link.up.reused && !x.link.up.answered && !x.client.forwarded &&
		x.Request.stdin.whole() && x.Late == nil
}

// readHeader calls the hook with the header block once b[:whole], which holds whole records, has all of it. It returns
// how many bytes of b can be passed on: none while the block is incomplete, unless final is set because nothing more
// will come.
func (x *Exchange) readHeader(b **buffer, whole int, final bool) int {
	if !x.inHeader || x.Header == nil {
		return whole
	}
	stdout, others := splitStdout((*b).b[:whole])
	if len(stdout.content) == 0 && !final {
		return whole
	}
	end := headerEnd(stdout.content)
	if end == 0 && !final && len(stdout.content) < maxHeader && whole < maxHeld {
		return 0
	}
	x.inHeader = false
	if end == 0 || end > maxHeader {
		return whole
	}
	h := ResponseHeader{block: stdout.content[:end]}
	x.Header(&h)
	if !h.edited {
		return whole
	}
	records := AppendStream(others, TypeStdout, x.Request.ID, append(h.block, stdout.content[end:]...))
	if stdout.ended {
		records = AppendRecord(records, TypeStdout, x.Request.ID, nil)
	}
	return replace(b, whole, records)
}
