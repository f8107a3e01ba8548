// Package gate is the way of one request: from a web server, past the lock of its PHP session, to PHP-FPM
// and back. request.go is the front door; it follows a request from begin request to end request.
//
// The wire is package fcgi's, the rules of session ids package phpsession's, and locks package sessionlock's.
// The gate itself stores nothing.
package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// Gate serves the requests of web servers. It is made by New.
type Gate struct {
	log      hclog.Logger
	lines    requestLog // for what requests, or a visitor, can cause again and again
	setup    atomic.Pointer[setup]
	counters counters
	habits   habits

	rotations rotations

	outliving outliving

	lostPost atomic.Int64 // when hintLostPost has logged, in Unix nanoseconds; 0: never

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*fcgi.Conn]struct{}
	room      *sync.Cond // is told when a conn has ended, or max_conns changed
	draining  bool
	rejecting bool // waiters are not waited for any more
	breaking  bool // nor are scripts
	serving   sync.WaitGroup

	spare   chan *fcgi.Conn // takes a conn if a goroutine has nothing to do
	drained chan struct{}   // closed when no more conns will come
}

// New makes a gate.
func New(o Options, log hclog.Logger) *Gate {
	g := &Gate{
		log:       log,
		lines:     requestLog{log: log},
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*fcgi.Conn]struct{}),
		spare:     make(chan *fcgi.Conn),
		drained:   make(chan struct{}),
	}
	g.room = sync.NewCond(&g.mu)
	g.setup.Store(newSetup(o, &g.counters, log))
	return g
}

// Configure changes the options. Requests that are on their way go on with those that they began with; the channel
// is closed when the last of them has ended.
func (g *Gate) Configure(o Options) <-chan struct{} {
	old := g.setup.Swap(newSetup(o, &g.counters, g.log))
	old.close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.room.Broadcast()
	return old.retire()
}

// enter returns the setup that is in force, for a request that begins now and will leave it.
func (g *Gate) enter() *setup {
	for {
		s := g.setup.Load()
		s.users.Add(1)
		if g.setup.Load() == s {
			return s
		}
		s.leave() // another one came in between: this one may have been idle already
	}
}

// Serve accepts conns from nl, which it owns from now on, until Shutdown ends it without an error. It can be called
// for several listeners.
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
			// Mostly the process is out of files. Those that are in use will be closed some time.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.log.Error("accept failed, trying again", "error", err, "pause_ms", pause.Milliseconds())
			time.Sleep(pause)
		}
	}
}

// spareTime is how long a goroutine that has served a conn waits for another. Its stack has grown by then to what a
// request needs, and growing one anew for each conn is a good part of what a request costs outside the kernel.
const spareTime = time.Second

// handOver has a conn served: by a goroutine that has served one before, if one is free.
func (g *Gate) handOver(c *fcgi.Conn) {
	select {
	case g.spare <- c:
	default:
		g.serving.Go(func() { g.serveConns(c) })
	}
}

// serveConns serves c, and then whatever is handed over, until nothing has been for a while.
func (g *Gate) serveConns(c *fcgi.Conn) {
	idle := time.NewTimer(spareTime)
	defer idle.Stop()
	for {
		g.serveConn(c)
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

// serveConn serves the requests of one conn, one behind the other, and closes it.
func (g *Gate) serveConn(c *fcgi.Conn) {
	defer g.removeConn(c)
	defer c.Close()
	for {
		r, err := c.Next()
		if err != nil {
			g.logHead(err)
			return
		}
		g.counters.requests.Add(1)
		if err := g.serve(r); err != nil || !r.Reusable() {
			return
		}
	}
}

// logHead logs why no request came of a conn: the end of one that is not needed any more is nothing to log.
func (g *Gate) logHead(err error) {
	switch {
	case err == io.EOF, errors.Is(err, fcgi.ErrIdle):
	case errors.Is(err, net.ErrClosed), errors.Is(err, fcgi.ErrHungUp), isReset(err):
		g.log.Debug("conn ended", "error", err)
	default:
		g.counters.malformed.Add(1)
		g.lines.write(hclog.Warn, "conn refused", nil, func() []any { return []any{"error", err} })
	}
}

// Shutdown stops accepting, and waits for the requests that are there. When ctx is done those that wait for a
// lock are answered 503; scripts that still run then are given grace to end, and their conns are broken after
// that. It returns nil if all requests came to their end.
func (g *Gate) Shutdown(ctx context.Context, grace time.Duration) error {
	g.drain()
	done := make(chan struct{})
	go func() {
		g.serving.Wait()
		close(done)
	}()
	defer func() { g.setup.Load().close() }()
	defer g.outliving.end()
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
		g.serving.Go(c.Kill) // beside each other: a web server that reads nothing is waited for a moment
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
	g.serving.Add(1) // Serve itself: a conn that it has accepted already is served
	return true
}

func (g *Gate) removeListener(l net.Listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.listeners, l)
	g.serving.Done()
}

// addConn makes a conn of what was accepted, which counts from now on. Nil: there is none to be made.
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

// waitForRoom waits, for a conn that has been accepted, while max_conns others are there. The next ones wait in the
// listener's backlog. So that web servers need not wait for each other's idle conns, the one that has idled longest is
// ended.
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

// roomPause is how often a gate that is full looks for a conn that has begun to idle.
const roomPause = 20 * time.Millisecond

// retireOne ends the conn that has idled longest, unless one is about to end already. It is called with the lock held.
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

// Conns is how many conns are there.
func (g *Gate) Conns() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// Listening says whether conns are accepted.
func (g *Gate) Listening() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.listeners) > 0 && !g.draining
}

// isReset says whether err is that of a peer which has gone.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
