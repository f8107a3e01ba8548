package fcgi

import "fmt"

// stdinScan follows the records that come after the head of a request: it picks those that go to the
// application, and has the conn answer the others.
type stdinScan struct {
	conn      *Conn
	request   uint16 // its id, as the web server knows it
	id        uint16 // that records are forwarded with
	wantsData bool   // a Filter: the data stream has to end as well
	left      int    // bytes that are left of a record whose header has been seen
	skip      bool   // that record is not forwarded
	keep      bool   // that record is one of Conn.early
	ended     bool   // stdin, and data if it is wanted, have ended
	stdinDone bool
	aborted   bool // the web server has sent an abort request
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
				s.conn.early.keep(b[i : i+n])
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
			s.conn.early.keep(b[i : i+headerLen])
			i += headerLen
			s.left = h.Len() - headerLen
		case h.RequestID != managementID:
			// It belongs to a request that has ended, or to none.
			i += headerLen
			s.left, s.skip = h.Len()-headerLen, true
		case len(b)-i < h.Len():
			return b[:kept], b[i:], nil
		default:
			if err := s.conn.answer(h, b[i+headerLen:i+headerLen+h.ContentLength]); err != nil {
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
		s.keep, err = s.conn.keepsEarly(h, s.whole())
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
	return h.RequestID != s.request || s.conn.early.ids[h.RequestID] || h.Type == TypeBeginRequest && s.whole()
}

// move copies n bytes within b, unless they are in their place, and returns n.
func move(b []byte, to, from, n int) int {
	if to != from {
		copy(b[to:], b[from:from+n])
	}
	return n
}
