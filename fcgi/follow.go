package fcgi

import "time"

// following is the wait for the end of a script that goes on after its response. Its connection is out of the pool.
type following struct {
	link  *link
	pool  *Pool
	up    *upstream
	after []byte // what of the script's output has been read, after the end request
	whole bool   // PHP-FPM has been sent all of the request
}

// follow takes the connection out of the pool for a script that goes on.
func follow(l *link, p *Pool, after []byte, whole bool) *following {
	up := l.take()
	p.lose(up)
	l.follow(up)
	return &following{l, p, up, after, whole}
}

// await waits until the script has ended, or until it is left, and then closes the connection.
//
// PHP-FPM reads the connection again when the script has ended, and not before. So it is sent a management record: its
// answer, or the end of the connection, shows that the worker is back. Unlike what is unread in a socket, that can be
// seen over TCP too.
func (f *following) await() {
	defer f.close()
	if !f.askForReturn() {
		return
	}
	b := newBuffer(max(middleBuffer, len(f.after)))
	defer func() { b.free() }()
	b.n = copy(b.b, f.after)
	for !skipLate(b) {
		n, err := f.up.nc.Read(b.space())
		if err != nil {
			return
		}
		b.n += n
	}
}

// askForReturn sends what PHP-FPM answers when the worker is back, and reports whether there is anything to wait for.
func (f *following) askForReturn() bool {
	if f.link.isLeft() {
		return false
	}
	if !f.whole {
		return f.up.nc.CloseWrite() == nil // the worker comes back to half a request, and ends the connection
	}
	_ = f.up.nc.SetWriteDeadline(time.Now().Add(lingerTimeout))
	_, err := f.up.nc.Write(AppendRecord(nil, TypeGetValues, managementID, AppendPair(nil, "FCGI_MPXS_CONNS", "")))
	return err == nil
}

// close closes the connection when no other goroutine looks at it.
func (f *following) close() {
	f.link.leave()
	f.link.kept.Lock()
	defer f.link.kept.Unlock()
	f.up.close()
	f.pool.forget()
}

// skipLate drops the records in b, and reports whether a management record is among them. Of one that has not come
// whole it keeps the header, with the length of what is still to come.
func skipLate(b *buffer) (returned bool) {
	for b.n >= headerLen {
		h := ParseHeader(b.bytes())
		if h.check() != nil || h.RequestID == managementID {
			return true
		}
		if b.n < h.Len() {
			left := h.Len() - b.n
			h.PaddingLength = min(left, maxPadding)
			h.ContentLength = left - h.PaddingLength
			h.append(b.b[:0])
			b.n = headerLen
			return false
		}
		b.drop(h.Len())
	}
	return false
}
