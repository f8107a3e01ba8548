package fcgi

import "time"

// follow takes the connection of a script that goes on after its response out of the pool, for AwaitScript. After is
// what has been read of its output.
func (x *Exchange) follow(after []byte) {
	up := x.takeUpstream()
	x.pool.lose(up)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.followed, x.after = up, after
}

// Follows reports whether Follow has returned true: AwaitScript must be called.
func (x *Exchange) Follows() bool { return x.followed != nil }

// AwaitScript waits until the script that goes on after its response has ended, or until Unfollow, and then calls
// Ended. The Request may be invalid by then. What the script prints is dropped.
//
// PHP-FPM reads the connection again when the script has ended, and not before. So it is sent a management record: its
// answer, or the end of the connection, shows that the worker is back. Unlike what is unread in a socket, that can be
// seen over TCP too.
func (x *Exchange) AwaitScript() {
	defer x.end()
	up := x.followed
	defer x.closeFollowed()
	if !x.askForReturn() {
		return
	}
	b := newBuffer(max(middleBuffer, len(x.after)))
	defer func() { b.free() }()
	b.n = copy(b.b, x.after)
	for !skipLate(b) {
		n, err := up.nc.Read(b.space())
		if err != nil {
			return
		}
		b.n += n
	}
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

// askForReturn sends what PHP-FPM answers when the worker is back, and reports whether there is anything to wait for.
func (x *Exchange) askForReturn() bool {
	x.mu.Lock()
	left := x.left
	x.mu.Unlock()
	if left {
		return false
	}
	up := x.followed
	if !x.client.whole.Load() || x.client.unsent {
		return up.nc.CloseWrite() == nil // the worker comes back to half a request, and ends the connection
	}
	_ = up.nc.SetWriteDeadline(time.Now().Add(lingerTimeout))
	_, err := up.nc.Write(AppendRecord(nil, TypeGetValues, managementID, AppendPair(nil, "FCGI_MPXS_CONNS", "")))
	return err == nil
}

// Unfollow ends AwaitScript, from any goroutine. PHP-FPM finds the connection closed at the script's next output, as
// if it had been closed by fastcgi_finish_request().
func (x *Exchange) Unfollow() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.left = true
	if x.followed != nil {
		_ = x.followed.nc.SetReadDeadline(past)
	}
}

// closeFollowed closes the connection of a script that was followed.
func (x *Exchange) closeFollowed() {
	x.Unfollow() // it is not looked at from now on
	x.kept.Lock()
	defer x.kept.Unlock()
	x.followed.close()
	x.pool.forget()
}
