package fcgi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Request is a request of a web server, from its begin request and params on. It belongs to the goroutine that called
// Conn.Next.
type Request struct {
	ID       uint16
	Role     Role
	KeepConn bool   // the web server wants the conn to stay open
	Params   Params // as they came

	conn        *Conn
	begun       bool
	begin       int // length of the begin request record
	paramsSize  int // bytes of the params records so far, with headers and padding, which take memory too
	head        int // length of what parseHead has processed: begin request and params records
	ending      int // length of the last params record, the empty one
	deadlineSet bool
	stdin       stdinScan
	stdinTaken  bool   // the bytes that came with the head have been scanned
	rest        []byte // the start of an incomplete record, after everything that was scanned
	ctx         *waitContext
	gone        bool // the web server has hung up, or aborted the request
}

// parseHead processes the records of a head in the conn's buffer: it leaves those of the request in place and cuts out
// all others. It reports whether the params have ended; if not, it returns the buffer size that the next step needs.
func (r *Request) parseHead(c *Conn) (done bool, need int, err error) {
	for {
		rest := c.buf.bytes()[r.head:]
		if len(rest) < headerLen {
			return false, r.head + headerLen + 1, nil
		}
		h := ParseHeader(rest)
		if err := r.checkHead(h); err != nil {
			return false, 0, c.refuse(err)
		}
		if len(rest) < h.Len() {
			return false, r.head + h.Len(), nil
		}
		if !r.belongs(h) {
			if err := r.setAside(c, h, rest[:h.Len()]); err != nil {
				return false, 0, err
			}
			c.buf.cut(r.head, h.Len())
			continue
		}
		if h.Type == TypeAbortRequest {
			return false, 0, c.refuse(fmt.Errorf("%w: request %d was aborted in its head", ErrHungUp, r.ID))
		}
		if done, err := r.takeHead(c, h, rest); done || err != nil {
			return done, 0, err
		}
	}
}

// setAside handles a record in the request's head that is not the request's own.
func (r *Request) setAside(c *Conn, h Header, record []byte) error {
	keep, err := false, error(nil)
	if r.begun {
		keep, err = c.keepsEarly(h, false)
	}
	if keep {
		c.early.keep(record)
		return nil
	}
	if err != nil {
		return err
	}
	return c.answer(h, record[headerLen:headerLen+h.ContentLength])
}

// checkHead refuses records that are not allowed in a head, by their header alone, before their content is read and
// kept.
func (r *Request) checkHead(h Header) error {
	if err := h.check(); err != nil {
		return err
	}
	if h.Type == TypeBeginRequest && h.ContentLength != beginBodyLen {
		return fmt.Errorf("%w: begin request has %d bytes of content, want %d", ErrMalformed, h.ContentLength, beginBodyLen)
	}
	if !r.belongs(h) {
		return nil
	}
	switch h.Type {
	case TypeBeginRequest:
		if r.begun {
			return fmt.Errorf("%w: request %d begins twice", ErrMalformed, h.RequestID)
		}
	case TypeParams:
		limit := r.conn.limits.MaxParams
		if limit > 0 && r.paramsSize+h.Len() > limit {
			return fmt.Errorf("%w: more than %d bytes", ErrParamsTooLarge, limit)
		}
	case TypeAbortRequest:
	default:
		return fmt.Errorf("%w: record of type %d before the params have ended", ErrMalformed, h.Type)
	}
	return nil
}

// belongs reports whether a record is the request's own: its begin request, or one with its id.
func (r *Request) belongs(h Header) bool {
	if h.RequestID == managementID {
		return false
	}
	if !r.begun {
		return h.Type == TypeBeginRequest
	}
	return h.RequestID == r.ID
}

// takeHead processes one record of the request's head, which is complete at the start of rest.
func (r *Request) takeHead(c *Conn, h Header, rest []byte) (done bool, err error) {
	record := rest[:h.Len()]
	r.head += len(record)
	if h.Type == TypeBeginRequest {
		return false, r.takeBegin(c, h, record)
	}
	r.paramsSize += len(record)
	if h.ContentLength > 0 {
		return false, nil
	}
	r.ending = len(record)
	r.Params, err = ParseParams(c.buf.b[r.begin : r.head-r.ending])
	if err != nil {
		return false, c.refuse(fmt.Errorf("read params: %w", err))
	}
	return true, nil
}

func (r *Request) takeBegin(c *Conn, h Header, record []byte) error {
	r.begun = true
	r.begin = len(record)
	r.ID = h.RequestID
	r.ctx.request = r.ID
	r.Role = Role(record[headerLen])<<8 | Role(record[headerLen+1])
	r.KeepConn = record[flagsOffset]&flagKeepConn != 0
	// An authorizer gets no stdin (section 6.3), but some web servers send its end nevertheless.
	r.stdin = stdinScan{conn: c, request: r.ID, wantsData: r.Role == RoleFilter, ended: r.Role == RoleAuthorizer}
	if r.Role < RoleResponder || r.Role > RoleFilter {
		return c.refuse(fmt.Errorf("%w %d", ErrUnknownRole, r.Role))
	}
	return nil
}

// Conn returns the conn of the request.
func (r *Request) Conn() *Conn { return r.conn }

// Context returns a context for the time before the request is relayed. It is done when the web server hangs up or
// Conn.Shutdown ends waiters. It watches the conn only after the first call of Done, so it costs nothing if nothing
// waits. The first read from the conn, by RoundTrip or Respond, ends the watching; after that it is never done.
func (r *Request) Context() context.Context {
	return r.ctx
}

// HungUp reports whether the web server is known to have hung up or to have aborted the request. It does not report a
// hang-up that the request outlives.
func (r *Request) HungUp() bool { return r.gone || r.ctx.err() == ErrHungUp }

// OutliveHangUp has the request go on if the web server hangs up while it waits, provided that all of its stdin has
// come by then: its Context is not done, and RoundTrip sends it, as PHP-FPM runs what it has got. An abort ends it in
// any case. It must be called before Context is used.
func (r *Request) OutliveHangUp() {
	r.ctx.outlives = true
	r.lookForEnd()
}

// Left reports whether the web server is known to have hung up on a request that goes on without it.
func (r *Request) Left() bool { return r.ctx.left.Load() }

// lookForEnd looks how far what has come of stdin is from its end. While the request waits, the buffer may change.
func (r *Request) lookForEnd() {
	r.ctx.place = stdinPlace{ends: r.stdin.ended, wantsData: r.stdin.wantsData}.after(r.conn.buf.bytes()[r.head:], r.ID)
}

// stopWatching gives the conn back to its reader.
func (r *Request) stopWatching() {
	if r.ctx != nil {
		r.ctx.stop()
	}
}

// takeStdin scans what came with the head, and returns what of it goes to the application. The second time
// there is nothing left to take.
func (r *Request) takeStdin() (forward []byte, err error) {
	if r.stdinTaken {
		return nil, nil
	}
	r.stdinTaken = true
	forward, rest, err := r.stdin.scan(r.conn.buf.bytes()[r.head:])
	r.rest = append([]byte(nil), rest...) // RoundTrip moves what follows the head
	if err != nil {
		return nil, r.conn.refuse(fmt.Errorf("read stdin: %w", err))
	}
	return forward, nil
}

// leaveStdin leaves what came with the head to be scanned with what comes next.
func (r *Request) leaveStdin() {
	r.stdinTaken = true
	r.rest = append([]byte(nil), r.conn.buf.bytes()[r.head:]...)
}

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
		if c.nc.SetReadDeadline(end) != nil || c.in.take() != nil {
			break
		}
		n, err := c.in.look(c.buf.space())
		c.buf.n += n
		if whole = r.bodyEnds(); whole || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			break // an error comes again when stdin is read
		}
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	r.lookForEnd()
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
