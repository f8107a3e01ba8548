package fcgi

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// stdinScan follows the records that come after the head of a request: it picks those that go to the
// application, and has the conn answer the others.
type stdinScan struct {
	request   *Request
	id        uint16 // that records are forwarded with
	wantsData bool   // a Filter: the data stream has to end as well
	left      int    // bytes that are left of a record whose header has been seen
	skip      bool   // that record is not forwarded
	keep      bool   // that record is one of Conn.early
	ended     bool   // stdin, and data if it is wanted, have ended
	stdinDone bool
	aborted   bool // the web server has sent an abort request
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

// whole reports whether stdin, and a Filter's data, have come to their end.
func (s *stdinScan) whole() bool { return s.ended && (s.left == 0 || s.keep) }

// scan takes as much of b as it can decide about. The records to be forwarded are moved together at the front of b
// and returned as forward; rest is the start of an incomplete record, to be put before what comes next.
func (s *stdinScan) scan(b []byte) (forward, rest []byte, err error) {
	kept := 0
	for i := 0; i < len(b); {
		if s.left > 0 {
			n := min(s.left, len(b)-i)
			switch {
			case s.keep:
				s.request.conn.early.keep(b[i : i+n])
			case !s.skip:
				kept += move(b, kept, i, n)
			}
			s.left -= n
			i += n
			continue
		}
		if len(b)-i < headerLen {
			return b[:kept], b[i:], nil
		}
		h := ParseHeader(b[i:])
		own, err := s.begin(h)
		if err != nil {
			return b[:kept], nil, err
		}
		switch {
		case own:
			move(b, kept, i, headerLen)
			setRequestID(b[kept:], s.id)
			kept += headerLen
			i += headerLen
			s.left, s.skip = h.Len()-headerLen, false
		case s.keep:
			s.request.conn.early.keep(b[i : i+headerLen])
			i += headerLen
			s.left = h.Len() - headerLen
		case h.RequestID != managementID:
			// It belongs to a request that has ended, or to none.
			i += headerLen
			s.left, s.skip = h.Len()-headerLen, true
		case len(b)-i < h.Len():
			return b[:kept], b[i:], nil
		default:
			if err := s.request.conn.answer(h, b[i+headerLen:i+headerLen+h.ContentLength]); err != nil {
				return b[:kept], nil, err
			}
			i += h.Len()
		}
	}
	return b[:kept], nil, nil
}

// begin checks a record by its header, and reports whether it is to be forwarded. It sets keep.
func (s *stdinScan) begin(h Header) (forward bool, err error) {
	s.keep = false
	if err := h.check(); err != nil {
		return false, err
	}
	if s.isLater(h) {
		s.keep, err = s.request.conn.keepsEarly(h, s.whole())
		return false, err
	}
	switch {
	case h.Type == TypeAbortRequest:
		s.aborted = true
		return false, nil
	case h.Type == TypeStdin && !s.stdinDone:
		s.stdinDone = h.ContentLength == 0
		s.ended = s.stdinDone && !s.wantsData
	case h.Type == TypeData && s.wantsData && !s.ended:
		s.ended = h.ContentLength == 0
	default:
		return false, fmt.Errorf("%w: record of type %d in request %d, where it has no place",
			ErrMalformed, h.Type, h.RequestID)
	}
	return true, nil
}

// isLater reports whether a record is not the request's own. The next request may have the same id.
func (s *stdinScan) isLater(h Header) bool {
	return h.RequestID != s.request.ID || s.request.conn.early.ids[h.RequestID] || h.Type == TypeBeginRequest && s.whole()
}

// move copies n bytes within b, unless they are in their place, and returns n.
func move(b []byte, to, from, n int) int {
	if to != from {
		copy(b[to:], b[from:from+n])
	}
	return n
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
