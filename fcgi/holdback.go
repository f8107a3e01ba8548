package fcgi

import (
	"context"
	"errors"
	"math"
	"os"
	"sync"
	"time"
)

// AwaitBody waits until stdin has come whole, until more than limit bytes of it have come, or for timeout. It reports
// how many have come, and whether that is all. It must not be called once an Exchange has the Request, nor after
// Respond.
func (r *Request) AwaitBody(limit int, timeout time.Duration) (n int, whole bool) {
	c := r.conn
	if whole = r.bodyEnds(); whole || c.buf.n-r.head > limit {
		return c.buf.n - r.head, whole
	}
	end := time.Now().Add(timeout)
	for c.buf.n-r.head <= limit && time.Now().Before(end) {
		if c.buf.n == len(c.buf.b) {
			c.makeRoom(c.buf.n)
		}
		if c.nc.SetReadDeadline(end) != nil || c.take() != nil {
			break
		}
		n, err := c.look(c.buf.space())
		c.buf.n += n
		if whole = r.bodyEnds(); whole || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			break // an error comes again when stdin is read
		}
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	return c.buf.n - r.head, whole
}

// bodyEnds reports whether the end of stdin is among what has come. What is malformed is left to its reader.
func (r *Request) bodyEnds() bool {
	for b := r.conn.buf.bytes()[r.head:]; len(b) >= headerLen; {
		h := ParseHeader(b)
		if h.check() != nil || h.RequestID == r.ID && h.Type == TypeStdin && h.ContentLength == 0 {
			return true
		}
		b = b[min(h.Len(), len(b)):]
	}
	return r.stdin.ended // of a role that gets none
}

// holdback is the part of stdin that PHP-FPM does not get before Late has returned: the last byte of its content and
// what comes after it. PHP reads as many bytes as CONTENT_LENGTH says before it runs the script, and does not wait for
// the end of stdin. Of multipart/form-data it may read fewer: it gives up at a part that it does not understand.
type holdback struct {
	left    int64 // how many bytes of content may still be sent
	content int   // how many are left of the present record
	padding int
	held    []byte
}

// split returns the part of b, which goes on with the records of stdin, that may be sent, and keeps the rest.
func (h *holdback) split(b []byte) []byte {
	n := 0
	for n < len(b) && len(h.held) == 0 {
		switch {
		case h.content > 0:
			send := int(min(int64(min(h.content, len(b)-n)), h.left))
			if send == 0 {
				h.held = append(h.held, b[n:]...)
				return b[:n]
			}
			h.content -= send
			h.left -= int64(send)
			n += send
		case h.padding > 0:
			skip := min(h.padding, len(b)-n)
			h.padding -= skip
			n += skip
		default:
			record := ParseHeader(b[n:])
			if record.ContentLength == 0 || h.left == 0 {
				h.held = append(h.held, b[n:]...)
				return b[:n]
			}
			h.content, h.padding = record.ContentLength, record.PaddingLength
			n += headerLen
		}
	}
	h.held = append(h.held, b[n:]...)
	return b[:n]
}

// lateCall is the call of Late, at most one of an exchange.
type lateCall struct {
	mu     sync.Mutex
	state  lateState
	ctx    context.Context
	cancel context.CancelFunc
	over   chan struct{} // closed when Late has returned
	gone   bool          // the web server has hung up meanwhile
	early  bool          // PHP-FPM responded before
}

// lateState is how far the call of Late is.
type lateState int

const (
	lateAhead lateState = iota
	lateCalled
	lateOver // PHP-FPM has been sent what was held back, or has responded before
)

func newLateCall() *lateCall {
	l := &lateCall{over: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// begin has Late called if it has not been, and returns how far it was before that.
func (l *lateCall) begin() lateState {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.state
	if before == lateAhead {
		l.state = lateCalled
	}
	return before
}

// isOver reports whether PHP-FPM may have all that there is of stdin.
func (l *lateCall) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == lateOver
}

// onGone notes that the web server has hung up, and reports whether nothing is held back.
func (l *lateCall) onGone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	return l.state == lateOver
}

// end notes that what was held back has been sent, and reports whether the web server has hung up.
func (l *lateCall) end() (gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = lateOver
	return l.gone
}

// settle ends a call of Late, or the need for one, as PHP-FPM has begun to respond. It returns when Late is not running
// and will not run.
func (l *lateCall) settle() {
	if l == nil {
		return
	}
	l.mu.Lock()
	called := l.state == lateCalled
	if l.state == lateAhead {
		l.state, l.early = lateOver, true
	}
	l.mu.Unlock()
	l.cancel()
	if called {
		<-l.over
	}
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

// callLate calls Late, and then sends what was held back.
func (cr *clientReader) callLate() {
	defer cr.running.Done()
	x := cr.x
	x.Late(cr.late.ctx)
	cr.late.cancel()
	close(cr.late.over)
	cr.sendHeld()
	cr.stdinOver()
	if cr.late.end() {
		cr.leave()
	}
}

// endStdin is called when no more of stdin comes.
func (cr *clientReader) endStdin() {
	if cr.late == nil {
		cr.stdinOver()
		return
	}
	switch cr.late.begin() {
	case lateAhead:
		cr.running.Add(1)
		go cr.callLate()
	case lateOver:
		cr.sendHeld()
		cr.stdinOver()
	}
}

// sendHeld sends what was held back of stdin. What comes after that is not held back.
func (cr *clientReader) sendHeld() {
	cr.send(cr.x.back.held)
	cr.x.back = holdback{left: math.MaxInt64}
}

// stdinOver is called when all that has come of stdin has been sent, and no more comes.
func (cr *clientReader) stdinOver() {
	if cr.x.Request.stdin.whole() {
		cr.sent()
	} else {
		_ = cr.x.up.nc.CloseWrite() // PHP-FPM should not wait for it
	}
}
