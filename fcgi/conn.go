package fcgi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// Limits bound what a web server can do on its conn. A zero duration or size is no limit.
type Limits struct {
	MaxParams   int           // bytes of params of one request
	HeadTimeout time.Duration // to read begin request and params
	IdleTimeout time.Duration // of a kept conn between two requests
}

// Errors of a Conn and its requests. Conn.Next also returns io.EOF and errors of the network.
var (
	// ErrIdle is returned when a conn sends nothing within its timeout.
	ErrIdle = errors.New("nothing came in time")
	// ErrParamsTooLarge is returned when a request has more params than Limits.MaxParams.
	ErrParamsTooLarge = errors.New("params are too large")
	// ErrUnknownRole is returned when a request has a role that FastCGI does not know.
	ErrUnknownRole = errors.New("unknown role")
	// ErrKilled is returned when Conn.Kill has ended the conn of a request.
	ErrKilled = errors.New("the conn was killed")
)

// Conn is a connection from a web server. Next returns its requests one at a time; it keeps those that begin earlier.
// Only whole records are written to it, so an answer to a management record can go between any two writes.
//
// One goroutine calls Next and works on the Request it returns. Shutdown, Kill, Retire and IdleSince can be called from
// any goroutine.
type Conn struct {
	nc      netpoll.Conn
	limits  Limits
	req     Request
	buf     *buffer // what was read: the head of req, then what came with it
	aliased *buffer // holds req.Params if buf was too small for what was added to them; else nil
	early   early   // requests that began before their turn
	kept    bool    // a request has been served before
	lingers bool    // bytes of the web server may be left unread: close gently
	in      input
	idle    idling
	waiting waiting

	mu       sync.Mutex
	exchange aborter // what Kill must abort; nil: nothing
	killed   bool
}

// NewListener returns a listener for NewConn that accepts on l, a *net.UnixListener or *net.TCPListener or a wrapper of
// one. It owns l.
func NewListener(l net.Listener) (net.Listener, error) { return netpoll.NewListener(l) }

// NewConn returns a Conn on nc and takes ownership of nc, which must be from such a listener, a *net.TCPConn
// or a *net.UnixConn.
func NewConn(nc net.Conn, limits Limits) (*Conn, error) {
	s, ok := nc.(netpoll.Conn)
	if !ok {
		return nil, fmt.Errorf("cannot serve a %T", nc)
	}
	return connOn(s, limits), nil
}

func connOn(nc netpoll.Conn, limits Limits) *Conn {
	c := &Conn{nc: nc, limits: limits, in: input{nc: nc}}
	c.idle.in = &c.in
	return c
}

// Next reads the head of the next request: its begin request and all of its params. It answers management records on
// the way. The Request is valid until the next call of Next or Close.
//
// Next returns io.EOF if the web server closed the conn between two requests, and ErrIdle if it sent nothing for too
// long. After any error the caller must Close the conn. If Next refuses a request, it has already answered it with the
// protocol status of the specification.
func (c *Conn) Next() (*Request, error) {
	if c.buf == nil {
		c.buf = newBuffer(smallBuffer)
	}
	c.keepRest()
	h := c.req.ctx
	if h == nil || h.asked() {
		h = &waitContext{in: &c.in, waiter: &c.waiting} // the old one's Done channel may still be in use
	}
	h.outlives = false
	c.req = Request{conn: c, ctx: h}
	if err := c.readHead(); err != nil {
		if err != io.EOF && err != ErrIdle {
			err = fmt.Errorf("read head: %w", err)
		}
		return nil, err
	}
	return &c.req, nil
}

// keepRest keeps what was read after the last request, if there was one, and frees the rest of its memory. A conn that
// has served a large request goes back to a smaller buffer, as it may be idle for long. It is not the smallest one,
// which would cost a web server with large requests one more read for each.
func (c *Conn) keepRest() {
	c.aliased.free()
	c.aliased = nil
	rest := c.req.rest
	if records := c.early.take(); len(records) > 0 {
		rest = append(records, rest...)
	}
	if len(c.buf.b) > middleBuffer && len(rest) <= middleBuffer {
		c.buf.free()
		c.buf = newBuffer(middleBuffer)
	}
	c.buf = c.buf.grown(len(rest))
	c.buf.n = copy(c.buf.b, rest)
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

// fill reads once, waiting for at least one byte.
func (c *Conn) fill() error {
	empty := c.buf.n == 0
	if err := c.setHeadDeadline(); err != nil {
		return err
	}
	if err := c.in.take(); err != nil {
		return err
	}
	n, err := c.in.look(c.buf.space())
	if errors.Is(err, os.ErrDeadlineExceeded) && empty && c.kept {
		n, err = c.idle.askToClose(c.buf.space())
	}
	c.buf.n += n
	if c.kept {
		c.idle.end()
	}
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && empty:
		if c.idle.isShutDown() {
			return io.EOF
		}
		return ErrIdle
	case err == io.EOF && !empty:
		return io.ErrUnexpectedEOF
	}
	return err
}

// setHeadDeadline bounds the wait for the next bytes: a kept conn may idle before the first byte of a request; from
// then on the whole head must come within HeadTimeout.
func (c *Conn) setHeadDeadline() error {
	if c.buf.n == 0 && c.kept {
		c.req.deadlineSet = false
		return c.idle.begin(c.limits.IdleTimeout)
	}
	if c.req.deadlineSet {
		return nil
	}
	c.req.deadlineSet = true
	return c.nc.SetReadDeadline(deadline(c.limits.HeadTimeout))
}

// makeRoom makes room for n more bytes. If it needs a larger buffer, it keeps the old one as well, because the Params
// alias it, and callers may use them as long as the request lasts.
func (c *Conn) makeRoom(n int) {
	if c.buf.n+n <= len(c.buf.b) {
		return
	}
	larger := newBuffer(c.buf.n + n)
	larger.n = copy(larger.b, c.buf.bytes())
	c.aliased, c.buf = c.buf, larger
}

// Shutdown ends the conn once it is idle. With waiters it also ends the Context of a request that waits, with
// ErrShutdown. A request that is being served, or that comes on a new conn, is served to its end. Until the web server
// has closed a kept conn, Next still returns requests that come, for at most five seconds, or half a second with
// waiters; then it returns io.EOF.
func (c *Conn) Shutdown(waiters bool) {
	c.idle.shutDown(waiters)
	if waiters {
		c.waiting.end()
	}
}

// IdleSince returns when the conn began to wait for its next request, or the zero time if it does not wait.
func (c *Conn) IdleSince() time.Time { return c.idle.began() }

// Retire ends the conn as soon as it is idle between two requests, as if IdleTimeout were over.
func (c *Conn) Retire() { c.idle.retire() }

// Retired reports whether Retire has been called.
func (c *Conn) Retired() bool { return c.idle.isRetired() }

// write sends whole records to the web server.
func (c *Conn) write(b []byte) error {
	_, err := c.nc.Write(b)
	return err
}

// Close closes the conn and frees its memory. If bytes of the web server are unread or may still come, it closes
// gently: closing at once would reset the connection, and the web server could lose the answer that is on its way.
func (c *Conn) Close() error {
	defer func() {
		c.buf.free()
		c.aliased.free()
		c.buf, c.aliased = nil, nil
	}()
	c.req.stopWatching()
	if c.lingers {
		c.linger()
	}
	return c.nc.Close()
}

// lingerTimeout bounds how long a conn is drained before it is closed.
const lingerTimeout = 2 * time.Second

// linger closes the sending side, and reads until the web server has closed its own.
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

// Truncate ends the conn so that the web server cannot take what it got for a complete response. A plain close would
// not do: nginx and Caddy take the end of the file for the end of the response.
//
// lighttpd completes even a truncated response if it has not sent the header yet, so Truncate first gives it a moment
// for that.
func (c *Conn) Truncate() {
	time.Sleep(truncatePause)
	c.truncate()
	c.lingers = netpoll.IsUnix(c.nc) && !c.in.resetsOnClose()
}

// Kill truncates the conn and closes it, from any goroutine, whatever it is doing. It aborts an exchange with
// ErrKilled, without waiting for its script.
func (c *Conn) Kill() {
	c.mu.Lock()
	c.killed = true
	x := c.exchange
	c.mu.Unlock()
	if x != nil {
		x.Abort(ErrKilled)
	}
	c.truncate()
	_ = c.nc.Close()
}

// aborter is an Exchange.
type aborter interface{ Abort(cause error) }

// setExchange sets what Kill must abort, and reports whether Kill has already been called.
func (c *Conn) setExchange(x aborter) (killed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exchange = x
	return c.killed
}

// truncate ensures that closing the conn makes the web server's next read fail, so that it does not take the close for
// the end of the response. A unix socket without unread bytes (when stdin is still to come) cannot do that. There
// truncate sends a record of version 255 that ends before its content, which no web server accepts. Its request id must
// not be 0: HAProxy 2.6 takes that for a management record, and crashes.
func (c *Conn) truncate() {
	switch {
	case !netpoll.IsUnix(c.nc):
		netpoll.ResetOnClose(c.nc)
	case !c.in.resetsOnClose():
		_ = c.nc.SetWriteDeadline(time.Now().Add(truncateTimeout))
		_ = c.write(Header{Version: 255, Type: TypeStdout, RequestID: 1<<16 - 1, ContentLength: maxContent}.append(nil))
	}
}

// truncatePause is longer than a busy web server takes to pass on what it has got. Tests shorten it.
var truncatePause = 50 * time.Millisecond
