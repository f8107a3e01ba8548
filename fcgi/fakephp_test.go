package fcgi

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// startPHP listens as PHP-FPM does, and has serve do with each connection what PHP-FPM could not be made to do at
// the right moment. The connections are closed when serve returns, and when the test ends.
func startPHP(t testing.TB, network string, serve func(*phpConn)) netaddr.Addr {
	t.Helper()
	l := listen(t, network)
	var conns sync.WaitGroup
	var n atomic.Int64
	conns.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p := &phpConn{peer: newPeer(t, nc), n: int(n.Add(1))}
			conns.Go(func() {
				defer nc.Close()
				serve(p)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return netaddr.Addr{Network: network, Address: l.Addr().String()}
}

// phpConn is a connection as PHP-FPM sees it.
type phpConn struct {
	*peer
	n int // which connection it is, from 1 on
}

// phpRequest is a request as PHP-FPM gets it.
type phpRequest struct {
	id      uint16
	keep    bool
	records []byte // all of it, as it came
	params  Params
	stdin   string
}

// request reads a whole request. io.EOF says that there is none.
func (p *phpConn) request() (phpRequest, error) {
	r, err := p.head()
	for err == nil {
		var h Header
		var content []byte
		h, content, err = p.take(&r)
		switch {
		case err != nil:
		case h.Type != TypeStdin || h.RequestID != r.id:
			err = errors.New("no stdin behind the head")
		case len(content) == 0:
			return r, nil
		}
		r.stdin += string(content)
	}
	return r, err
}

// head reads the head of a request.
func (p *phpConn) head() (r phpRequest, err error) {
	h, content, err := p.take(&r)
	if err != nil {
		return r, err
	}
	if h.Type != TypeBeginRequest {
		return r, errors.New("no begin request")
	}
	r.id, r.keep = h.RequestID, content[2]&flagKeepConn != 0
	begin := len(r.records)
	for {
		end := len(r.records)
		h, content, err = p.take(&r)
		switch {
		case err != nil:
			return r, err
		case h.Type != TypeParams || h.RequestID != r.id:
			return r, errors.New("no params behind the begin request")
		case len(content) == 0:
			r.params, err = ParseParams(append([]byte(nil), r.records[begin:end]...))
			return r, err
		}
	}
}

// take reads a record of a request, and keeps it as it came.
func (p *phpConn) take(r *phpRequest) (Header, []byte, error) {
	kept := &keeper{r: p.Conn}
	h, content, err := readRecord(kept)
	r.records = append(r.records, kept.b...)
	return h, content, err
}

type keeper struct {
	r io.Reader
	b []byte
}

func (k *keeper) Read(b []byte) (int, error) {
	n, err := k.r.Read(b)
	k.b = append(k.b, b[:n]...)
	return n, err
}

// answer ends the request with a response.
func (p *phpConn) answer(id uint16, stdout string) {
	_, _ = p.Write(answerOf(id, stdout))
}

func answerOf(id uint16, stdout string) []byte {
	b := AppendStream(nil, TypeStdout, id, []byte(stdout))
	return AppendEndRequest(AppendRecord(b, TypeStdout, id, nil), id, 0, StatusRequestComplete)
}

// ended waits until the gate is done with the connection.
func (p *phpConn) ended() { _, _ = io.Copy(io.Discard, p.Conn) }

// echo answers all requests of a connection with their body.
func echo(p *phpConn) {
	for {
		r, err := p.request()
		if err != nil {
			return
		}
		p.answer(r.id, "X-Echo: 1\r\n\r\n"+r.stdin)
	}
}

// running is an exchange under way.
type running struct {
	t     testing.TB
	web   *peer
	conn  *Conn
	x     *Exchange
	ended chan struct{} // closed by Ended
	done  chan error
}

// start has a web server on its own conn send a request, and relays it. Edit may change the Exchange before that.
func start(t testing.TB, pool *Pool, network string, edit func(*Exchange), request ...[]byte) *running {
	t.Helper()
	c, web := newConn(t, network, Limits{})
	run := &running{t: t, web: web, conn: c}
	run.again(pool, edit, request...)
	return run
}

// next does the same with another request on the same conn, when the worker of the last one is back for it.
func (run *running) next(pool *Pool, edit func(*Exchange), request ...[]byte) {
	run.t.Helper()
	await(run.t, "the worker is back", func() bool { return restsAll(pool) })
	run.again(pool, edit, request...)
}

// restsAll reports whether all idle connections have been read to their end.
func restsAll(p *Pool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.backends {
		for _, u := range b.idle {
			if n, err := u.unread(); u.isUnix() && (n > 0 || err != nil) {
				return false
			}
		}
	}
	return true
}

// again does the same at once.
func (run *running) again(pool *Pool, edit func(*Exchange), request ...[]byte) {
	run.t.Helper()
	switch all := joined(request...); {
	case len(all) == 0: // it is being sent already
	case len(all) < 120_000:
		run.web.send(all) // it is there as a whole when it is read
	default:
		defer run.web.send(all) // it has to be read meanwhile
	}
	run.ended, run.done = make(chan struct{}), make(chan error, 1)
	ended, done := run.ended, run.done
	run.x = &Exchange{
		Params:       pairsOf("FPM_GATE_LOCK", "held"),
		Ended:        func() { close(ended) },
		AbandonAfter: patience,
	}
	if edit != nil {
		edit(run.x)
	}
	x, c := run.x, run.conn
	go func() {
		r, err := c.Next()
		if err != nil {
			done <- err
			return
		}
		x.Request = r
		err = pool.RoundTrip(r.Context(), x)
		if err != nil || !r.Reusable() {
			defer c.Close()
		}
		done <- err
	}()
}

// result waits for the end of the exchange.
func (run *running) result() error {
	run.t.Helper()
	return receive(run.t, "the end of the exchange", run.done)
}

// isEnded reports whether Ended has been called.
func (run *running) isEnded() bool {
	select {
	case <-run.ended:
		return true
	default:
		return false
	}
}

// newPool returns a pool of the given addresses, with options that a test does not have to wait for.
func newPool(t testing.TB, edit func(*PoolOptions), addrs ...netaddr.Addr) *Pool {
	t.Helper()
	o := PoolOptions{
		Addrs: addrs, ConnectTimeout: patience, QueueTimeout: patience,
		Reuse: patience, Idle: patience,
	}
	if edit != nil {
		edit(&o)
	}
	p := NewPool(o)
	t.Cleanup(p.Close)
	return p
}

// onAll runs a test with the web server and PHP-FPM on unix sockets and on TCP.
func onAll(t *testing.T, test func(t *testing.T, web, php string)) {
	for _, web := range []string{"unix", "tcp"} {
		for _, php := range []string{"unix", "tcp"} {
			t.Run(web+" to "+php, func(t *testing.T) {
				t.Parallel()
				test(t, web, php)
			})
		}
	}
}

// sooner waits a moment for something that should not happen in it, and reports whether it does.
func sooner(c <-chan struct{}, d time.Duration) bool {
	select {
	case <-c:
		return true
	case <-time.After(d):
		return false
	}
}
