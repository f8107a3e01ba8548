package fcgi

import (
	"context"
	"sync"
)

// holdback is the part of stdin that PHP-FPM does not get before Late has returned: the last byte of its content and
// what comes after it. PHP reads as many bytes as CONTENT_LENGTH says before it runs the script, and does not wait for
// the end of stdin. Of multipart/form-data it may read fewer: it gives up at a part that it does not understand.
type holdback struct {
	left    int64 // how many bytes of content may still be sent
	content int   // how many are left of the present record
	padding int
	held    []byte
	off     bool // nothing is held back from now on
}

// split returns the part of b, which goes on with the records of stdin, that may be sent, and keeps the rest.
func (h *holdback) split(b []byte) []byte {
	if h.off {
		return b
	}
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
	call func(context.Context)
	back holdback

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

// newLateCall returns the call of call, for which the last of length bytes of content is held back.
func newLateCall(call func(context.Context), length int64) *lateCall {
	l := &lateCall{call: call, back: holdback{left: max(length-1, 0)}, over: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// begin has Late called if it has not been, and returns how far it was before that.
func (l *lateCall) begin() lateState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beginLocked()
}

func (l *lateCall) beginLocked() lateState {
	before := l.state
	if before == lateAhead {
		l.state = lateCalled
	}
	return before
}

// run calls Late. What was held back may be sent then.
func (l *lateCall) run() {
	l.call(l.ctx)
	l.cancel()
	close(l.over)
}

// isOver reports whether PHP-FPM may have all that there is of stdin.
func (l *lateCall) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == lateOver
}

// onGone is begin for a web server that has hung up. It notes that in the same step: if PHP-FPM begins to respond at
// this moment, either onGone returns lateOver, or end returns true.
func (l *lateCall) onGone() lateState {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	return l.beginLocked()
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

// respondedEarly reports whether PHP-FPM responded before Late was due. A nil call was never due.
func (l *lateCall) respondedEarly() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.early
}
