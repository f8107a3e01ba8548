package fcgi

// stdinPlace is a place in the records behind the head of a request: how far it is from the end of stdin.
type stdinPlace struct {
	wantsData bool // a Filter's data come after it
	left      int  // bytes of the present record
	header    [headerLen]byte
	n         int  // bytes of the next record's header
	ends      bool // stdin has ended
	broken    bool // by an abort, or by what is malformed
}

// after returns the place after b, with records of the request id and others.
func (p stdinPlace) after(b []byte, id uint16) stdinPlace {
	last := TypeStdin
	if p.wantsData {
		last = TypeData
	}
	for len(b) > 0 && !p.broken {
		if p.left > 0 {
			n := min(p.left, len(b))
			p.left -= n
			b = b[n:]
			continue
		}
		n := copy(p.header[p.n:], b)
		p.n += n
		b = b[n:]
		if p.n < headerLen {
			break
		}
		h := ParseHeader(p.header[:])
		p.n, p.left = 0, h.Len()-headerLen
		own := h.RequestID == id
		p.broken = h.check() != nil || own && h.Type == TypeAbortRequest
		p.ends = p.ends || own && h.Type == last && h.ContentLength == 0
	}
	return p
}

// isWhole reports whether stdin has ended, and the request is not aborted.
func (p stdinPlace) isWhole() bool { return p.ends && !p.broken }
