package fcgi

// maxEarly bounds the bytes that a conn keeps of requests whose turn has not come: about 100 kB each for a web server
// that multiplexes 20 requests.
const maxEarly = 2 << 20

// early keeps the records of requests that begin before the request ahead of them has ended, as a multiplexing web
// server sends them. They are served afterwards in the order in which they began, as PHP-FPM does.
type early struct {
	records []byte // as they came; the last one may be incomplete
	ids     map[uint16]bool
}

// keeps reports whether to keep a record because it belongs to a request whose turn has not come. It ends such a
// request if it is aborted, or if it does not fit into maxEarly while the one ahead is still being read: then it
// returns the end request that the web server must get.
func (e *early) keeps(h Header, aheadWhole bool) (keep bool, end []byte) {
	switch {
	case h.RequestID == managementID:
		return false, nil
	case h.Type == TypeBeginRequest:
		e.begin(h.RequestID)
	case !e.ids[h.RequestID]:
		return false, nil
	case h.Type == TypeAbortRequest:
		e.remove(h.RequestID)
		return false, AppendEndRequest(nil, h.RequestID, 0, StatusRequestComplete)
	}
	if len(e.records)+h.Len() > maxEarly && !aheadWhole {
		e.remove(h.RequestID)
		return false, AppendEndRequest(nil, h.RequestID, 0, StatusOverloaded)
	}
	return true, nil
}

func (e *early) begin(id uint16) {
	if e.ids == nil {
		e.ids = make(map[uint16]bool)
	}
	e.ids[id] = true
}

// keep appends a piece of a record.
func (e *early) keep(piece []byte) { e.records = append(e.records, piece...) }

// remove removes all records of a request. They are complete, because another record has begun.
func (e *early) remove(id uint16) {
	delete(e.ids, id)
	kept := e.records[:0]
	for rest := e.records; len(rest) > 0; {
		h := ParseHeader(rest)
		if h.RequestID != id {
			kept = append(kept, rest[:h.Len()]...)
		}
		rest = rest[h.Len():]
	}
	e.records = kept
}

// take returns and forgets the kept records, which start the next request.
func (e *early) take() []byte {
	records := e.records
	*e = early{}
	return records
}
