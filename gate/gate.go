// Package gate takes requests from web servers, acquires the lock of their PHP session, and relays them to PHP-FPM and
// the responses back. Start with request.go: it follows one request from begin request to end request.
//
// Package fcgi speaks the protocol, phpsession finds session ids, and sessionlock keeps the locks. The gate itself
// stores nothing.
package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// Gate serves the requests of web servers. Create it with New.
type Gate struct {
	shared

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*fcgi.Conn]struct{}
	room      *sync.Cond // signaled when a conn ends or MaxConns changes
	draining  bool
	rejecting bool // waiting requests are rejected
	breaking  bool // running requests are cut off

	spare   chan *fcgi.Conn // hands a conn to an idle serving goroutine
	drained chan struct{}   // closed when no more conns will come
}

// New returns a gate, which serves nothing before Serve.
func New(o Options, log hclog.Logger) *Gate {
	g := &Gate{
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*fcgi.Conn]struct{}),
		spare:     make(chan *fcgi.Conn),
		drained:   make(chan struct{}),
	}
	g.room = sync.NewCond(&g.mu)
	g.shared.init(log)
	g.adopt(o)
	return g
}

// Configure changes the options. Requests in progress keep the options with which they started. The channel is closed
// when the last of them has ended.
func (g *Gate) Configure(o Options) <-chan struct{} {
	old := g.adopt(o)
	old.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room.Broadcast()
	return old.retire()
}

// Serve accepts conns from nl, which it closes, until Shutdown; then it returns nil. It can be called for several
// listeners.
func (g *Gate) Serve(nl net.Listener) error {
	l, err := fcgi.NewListener(nl)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	if !g.addListener(l) {
		return nil
	}
	defer g.removeListener(l)
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			g.waitForRoom()
			if c := g.addConn(nc); c != nil {
				g.handOver(c)
			}
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			// Usually the process is out of file descriptors, and others will be closed.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.log.Error("accept failed, retrying", "error", err, "pause_ms", pause.Milliseconds())
			time.Sleep(pause)
		}
	}
}

// spareTime is how long a goroutine that has served a conn waits for another. Its stack has grown to what a request
// needs; growing a new one for each conn is a good part of what a request costs outside the kernel.
const spareTime = time.Second

// handOver hands a conn to an idle goroutine, or starts one.
func (g *Gate) handOver(c *fcgi.Conn) {
	select {
	case g.spare <- c:
	default:
		g.serving.Go(func() { g.serveConns(c) })
	}
}

// serveConns serves c and then other conns, until there has been none for spareTime.
func (g *Gate) serveConns(c *fcgi.Conn) {
	slow := new(alarm)
	idle := time.NewTimer(spareTime)
	defer idle.Stop()
	for {
		g.serveConn(c, slow)
		idle.Reset(spareTime)
		select {
		case c = <-g.spare:
		case <-idle.C:
			return
		case <-g.drained:
			return
		}
	}
}

// serveConn serves the requests of a conn one after the other, and closes it.
func (g *Gate) serveConn(c *fcgi.Conn, slow *alarm) {
	defer g.removeConn(c)
	defer c.Close()
	for {
		r, err := c.Next()
		if err != nil {
			g.logHead(err)
			return
		}
		g.counters.requests.Add(1)
		if err := serve(&g.shared, r, slow); err != nil || !r.Reusable() {
			return
		}
	}
}

// logHead logs why no request could be read from a conn. The normal end of an idle conn is not logged.
func (g *Gate) logHead(err error) {
	switch {
	case err == io.EOF, errors.Is(err, fcgi.ErrIdle):
	case errors.Is(err, net.ErrClosed), errors.Is(err, fcgi.ErrHungUp), isReset(err):
		g.log.Debug("conn ended", "error", err)
	default:
		g.counters.connsRefused.Add(1)
		g.lines.write(hclog.Warn, "conn refused", nil, func() []any { return []any{"error", err} })
	}
}

// Shutdown stops accepting and waits for the requests in progress. When ctx is done, those that wait for a lock get a
// 503. Scripts still running then get grace to end; after that their conns are cut off, and Shutdown returns the cause
// of ctx. It returns nil if all requests ended by themselves.
func (g *Gate) Shutdown(ctx context.Context, grace time.Duration) error {
	g.drain()
	done := make(chan struct{})
	go func() {
		g.serving.Wait()
		g.outliving.wait() // scripts that go on after their response
		close(done)
	}()
	defer func() { g.setup.Load().close() }()
	defer g.outliving.end()
	defer g.slow.flush()
	defer g.lines.flush()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	g.shutdownConns(true)
	select {
	case <-done:
		return nil
	case <-time.After(grace):
	}
	g.outliving.end()
	g.breakConns()
	<-done
	return context.Cause(ctx)
}

func (g *Gate) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.draining {
		close(g.drained)
	}
	g.draining = true
	for l := range g.listeners {
		_ = l.Close()
	}
	for c := range g.conns {
		c.Shutdown(false)
	}
	g.room.Broadcast()
}

func (g *Gate) shutdownConns(waiters bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rejecting = g.rejecting || waiters
	for c := range g.conns {
		c.Shutdown(waiters)
	}
}

func (g *Gate) breakConns() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breaking = true
	for c := range g.conns {
		g.serving.Go(c.Kill) // concurrently: Kill waits a moment for a web server that reads nothing
	}
}

func (g *Gate) addListener(l net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		_ = l.Close()
		return false
	}
	g.listeners[l] = struct{}{}
	g.serving.Add(1) // for Serve itself, so that a conn which it has just accepted is served
	return true
}

func (g *Gate) removeListener(l net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.listeners, l)
	g.serving.Done()
}

// addConn adds a conn for an accepted connection. It returns nil if that fails.
func (g *Gate) addConn(nc net.Conn) *fcgi.Conn {
	c, err := fcgi.NewConn(nc, g.setup.Load().Limits)
	if err != nil {
		g.log.Error("conn refused", "error", err)
		_ = nc.Close()
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	if g.draining {
		c.Shutdown(g.rejecting)
	}
	if g.breaking {
		g.serving.Go(c.Kill)
	}
	return c
}

func (g *Gate) removeConn(c *fcgi.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	g.room.Signal()
}

// waitForRoom waits, with one accepted conn, while there are max_conns others. Further ones wait in the listener's
// backlog. To make room, waitForRoom retires the conn that has been idle longest.
func (g *Gate) waitForRoom() {
	limit := g.setup.Load().MaxConns
	if limit == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for limit > 0 && len(g.conns) >= limit && !g.draining {
		g.retireOne()
		again := time.AfterFunc(roomPause, g.room.Broadcast)
		g.room.Wait()
		again.Stop()
		limit = g.setup.Load().MaxConns
	}
}

// roomPause is how often a full gate looks for an idle conn.
const roomPause = 20 * time.Millisecond

// retireOne retires the conn that has been idle longest, unless one is already retiring. The caller must hold the
// mutex.
func (g *Gate) retireOne() {
	var longest *fcgi.Conn
	var since time.Time
	for c := range g.conns {
		at := c.IdleSince()
		switch {
		case at.IsZero():
		case c.Retired():
			return
		case longest == nil || at.Before(since):
			longest, since = c, at
		}
	}
	if longest != nil {
		longest.Retire()
	}
}

// Pause has all requests that PHP-FPM has not got yet wait, until Resume or for limit. A second call sets a new limit.
func (g *Gate) Pause(limit time.Duration) { g.pause.begin(limit) }

// Resume ends a pause. It reports whether there was one.
func (g *Gate) Resume() bool { return g.pause.end(time.Time{}) }

// PauseState returns the current state.
func (g *Gate) PauseState() PauseState { return g.pause.state() }

// Conns returns the number of conns.
func (g *Gate) Conns() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// Listening reports whether the gate accepts conns.
func (g *Gate) Listening() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.listeners) > 0 && !g.draining
}

// isReset reports whether err means that the peer has gone.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
