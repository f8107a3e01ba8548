package fcgi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Limits are what a web server is allowed on its conn. A zero duration or size is no limit.
type Limits struct {
	MaxParams   int           // bytes of params of one request
	HeadTimeout time.Duration // until begin request and params are whole
	IdleTimeout time.Duration // of a kept conn between two requests
}

// Errors of Conn.Next, beside io.EOF and those of the network.
var (
	// ErrIdle is that of a conn which sent nothing at all for as long as it may.
	ErrIdle = errors.New("nothing came in time")
	// ErrParamsTooLarge is that of a request with more params than Limits.MaxParams.
	ErrParamsTooLarge = errors.New("params are too large")
	// ErrUnknownRole is that of a request which asks for a role that FastCGI does not know.
	ErrUnknownRole = errors.New("unknown role")
	// ErrKilled is that of a request whose conn was ended by Conn.Kill.
	ErrKilled = errors.New("the conn was killed")
	// ErrShutdown is what a context ends with when Conn.Shutdown ended it.
	ErrShutdown = errors.New("the gate is shutting down")
)

// Conn is a connection from a web server. Next returns its requests one at a time; those that begin earlier are kept
// until then. All that is written to it is whole records, so an answer to a management record can go between any two
// writes.
//
// One goroutine calls Next and works on the Request it returned; Shutdown may be called from any other.
type Conn struct {
	nc         stream
	limits     Limits
	req        Request
	buf        *buffer // what has come: the head of req, then what came with it
	aliased    *buffer // where req.Params are, if buf was too small for what was added to them; else nil
	early      early   // requests that have begun before their turn
	kept       bool    // a request has been served before
	lastID     uint16  // of the last request that has been served
	looksFirst bool    // see looksFirst
	spoilt     bool    // bytes of the web server are left unread: close gently
	unread     leftInSocket

	mu         sync.Mutex
	waiting    *hangUp // what Shutdown has to end
	idle       bool    // between two requests
	idleSince  time.Time
	asking     bool      // the web server has been asked to close; what ends idle conns has nothing more to do
	askedUntil time.Time // when that is no longer waited for; zero: the conn is not to end
	retired    bool      // by Retire
	shutdown   bool
	endWaiters bool
	exchange   *Exchange // what Kill has to abort
	killed     bool
}

// NewConn serves nc, which it owns from now on. It must be from a Listener, or a *net.TCPConn or *net.UnixConn.
func NewConn(nc net.Conn, limits Limits) (*Conn, error) {
	s, ok := nc.(stream)
	if !ok {
		return nil, fmt.Errorf("cannot serve a %T", nc)
	}
	return &Conn{nc: s, limits: limits}, nil
}

// Next reads the head of the next request: its begin request and the whole of its params. It answers
// management records on the way. The Request is valid until the next call of Next or Close.
//
// io.EOF says that the web server closed the conn between two requests, ErrIdle that it sent nothing for too
// long. After any error there is nothing to do but Close; a web server whose request was refused has been
// told why by then, with the protocol status of the specification.
func (c *Conn) Next() (*Request, error) {
	if c.buf == nil {
		c.buf = newBuffer(smallBuffer)
	}
	c.keepRest()
	h := c.req.hangUp
	if h == nil || h.asked() {
		h = &hangUp{conn: c} // who has asked the old one for Done may still do so
	}
	c.req = Request{conn: c, hangUp: h}
	if err := c.readHead(); err != nil {
		if err != io.EOF && err != ErrIdle {
			err = fmt.Errorf("read head: %w", err)
		}
		return nil, err
	}
	return &c.req, nil
}

// keepRest keeps what has come after the last request, if there was one, and lets go of the rest of it.
func (c *Conn) keepRest() {
	c.aliased.free()
	c.aliased = nil
	if records := c.early.take(); len(records) > 0 {
		records = append(records, c.req.rest...)
		c.buf = c.buf.grown(len(records))
		c.buf.n = copy(c.buf.b, records)
		return
	}
	c.buf = c.buf.grown(len(c.req.rest))
	c.buf.n = copy(c.buf.b, c.req.rest)
}

// readHead reads until the params stream of c.req has ended.
func (c *Conn) readHead() error {
	for {
		done, need, err := c.req.parseHead(c)
		if done || err != nil {
			return err
		}
		c.buf = c.buf.grown(need)
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill reads what has come, as much as there is room for.
func (c *Conn) fill() error {
	empty := c.buf.n == 0
	if err := c.setHeadDeadline(); err != nil {
		return err
	}
	if err := c.take(); err != nil {
		return err
	}
	n, err := c.look(c.buf.space())
	if errors.Is(err, os.ErrDeadlineExceeded) && empty && c.kept {
		n, err = c.askToClose()
	}
	c.buf.n += n
	c.endIdle()
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && empty:
		if c.shuttingDown() {
			return io.EOF
		}
		return ErrIdle
	case err == io.EOF && !empty:
		return io.ErrUnexpectedEOF
	}
	return err
}

// setHeadDeadline bounds the wait for the next bytes: a kept conn may idle before the first of a request,
// and all of a head has to come within HeadTimeout from then on.
func (c *Conn) setHeadDeadline() error {
	if c.buf.n == 0 && c.kept {
		c.req.deadlineSet = false
		return c.beginIdle()
	}
	if c.req.deadlineSet {
		return nil
	}
	c.req.deadlineSet = true
	return c.nc.SetReadDeadline(deadline(c.limits.HeadTimeout))
}

// beginIdle is setHeadDeadline between two requests, where Shutdown may come in between.
func (c *Conn) beginIdle() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle, c.idleSince = true, time.Now()
	if c.shutdown || c.retired {
		return c.nc.SetReadDeadline(past)
	}
	c.askedUntil = time.Time{}
	return c.nc.SetReadDeadline(deadline(c.limits.IdleTimeout))
}

// endIdle keeps Shutdown from interrupting: a request whose first byte has come is served. If it was faster, the
// deadline that it has set is not that of the head which has begun.
func (c *Conn) endIdle() {
	if !c.kept {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle, c.asking = false, false
}

// makeRoom makes room for n more bytes. What has come stays where it is as well, because the Params alias it, and
// others than us may look at them as long as the request lasts.
func (c *Conn) makeRoom(n int) {
	if c.buf.n+n <= len(c.buf.b) {
		return
	}
	larger := newBuffer(c.buf.n + n)
	larger.n = copy(larger.b, c.buf.bytes())
	c.aliased, c.buf = c.buf, larger
}

// deadline is the time after timeout, or none for a timeout of zero.
func deadline(timeout time.Duration) time.Time {
	if timeout == 0 {
		return time.Time{}
	}
	return time.Now().Add(timeout)
}

// Shutdown ends what the conn waits for: one that idles between two requests is ended, and a Request whose Context is
// waited for gets ErrShutdown if waiters is set. A request that is being served, or that comes on a new conn, is left
// alone; its conn ends when it is done. Until the web server has closed a kept conn, for half a second at most, Next
// still returns requests that come; then it returns io.EOF.
func (c *Conn) Shutdown(waiters bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutdown = true
	c.endWaiters = c.endWaiters || waiters
	if c.idle && !c.asking {
		_ = c.nc.SetReadDeadline(past) // fill takes it for the end
	}
	if waiters && c.waiting != nil {
		c.waiting.end(ErrShutdown)
	}
}

// IdleSince returns when the conn began to wait for its next request, and the zero time while it does not.
func (c *Conn) IdleSince() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.idle {
		return time.Time{}
	}
	return c.idleSince
}

// Retire ends the conn as soon as it idles between two requests, as if it had idled for IdleTimeout.
func (c *Conn) Retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	if c.idle && !c.asking {
		_ = c.nc.SetReadDeadline(past)
	}
}

// Retired reports whether Retire has been called.
func (c *Conn) Retired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.retired
}

// shuttingDown says whether Shutdown has been called.
func (c *Conn) shuttingDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shutdown
}

// write sends whole records to the web server.
func (c *Conn) write(b []byte) error {
	_, err := c.nc.Write(b)
	return err
}

// Close closes the conn and frees its memory. A conn from which bytes are unread, or may yet come, is closed
// gently: closing it at once would reset the peer, which would lose the answer that is on its way to it.
func (c *Conn) Close() error {
	defer func() {
		c.buf.free()
		c.aliased.free()
		c.buf, c.aliased = nil, nil
	}()
	c.req.stopWatching()
	if c.spoilt {
		c.linger()
	}
	return c.nc.Close()
}

// lingerTimeout bounds how long a conn is drained before it is closed.
const lingerTimeout = 2 * time.Second

// linger says that nothing more will come from here, and reads until the web server has seen it.
func (c *Conn) linger() {
	if c.nc.CloseWrite() != nil || c.nc.SetReadDeadline(time.Now().Add(lingerTimeout)) != nil {
		return
	}
	b := newBuffer(smallBuffer)
	defer b.free()
	for {
		if _, err := c.nc.Read(b.b); err != nil {
			return
		}
	}
}

// Break ends the conn so that the web server cannot take what it got for a whole response. A plain close
// would not do: nginx and Caddy take the end of the file for the end of the response.
//
// lighttpd completes even a broken response if it has not sent its header yet; so it gets a moment for that first.
func (c *Conn) Break() {
	time.Sleep(breakPause)
	c.breakOff()
	c.spoilt = isUnix(c.nc) && !c.resetsOnClose()
}

// Kill breaks the conn off and closes it, from any goroutine, whatever it is busy with. An exchange is aborted with
// ErrKilled: its script is not waited for.
func (c *Conn) Kill() {
	c.mu.Lock()
	c.killed = true
	x := c.exchange
	c.mu.Unlock()
	if x != nil {
		x.Abort(ErrKilled)
	}
	c.breakOff()
	_ = c.nc.Close()
}

// setExchange notes what Kill has to abort, and says whether it has been called already.
func (c *Conn) setExchange(x *Exchange) (killed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchange = x
	return c.killed
}

// breakOff makes sure that closing the conn is not taken for the end of a response: the web server's next read fails.
// A unix socket on which nothing is unread, because stdin is still to come, cannot do that; there a record of version
// 255 that ends before its content is too much for every web server. Its request id must not be 0: HAProxy 2.6 takes
// that for a management record, and crashes.
func (c *Conn) breakOff() {
	switch {
	case !isUnix(c.nc):
		resetOnClose(c.nc)
	case !c.resetsOnClose():
		_ = c.nc.SetWriteDeadline(time.Now().Add(breakTimeout))
		_ = c.write(Header{Version: 255, Type: TypeStdout, RequestID: 1<<16 - 1, ContentLength: maxContent}.append(nil))
	}
}

// breakPause is longer than a web server takes, on a busy day, to pass on what it has got. Tests shorten it.
var breakPause = 50 * time.Millisecond

// breakTimeout bounds how long a web server that reads nothing is waited for in order to tell it so.
const breakTimeout = 100 * time.Millisecond

// past is a deadline that has been reached.
var past = time.Unix(1, 0)
