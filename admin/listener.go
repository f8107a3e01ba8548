package admin

import (
	"net"
	"sync"
	"time"
)

// Limits of what operators can take from the requests: files, memory and time.
const (
	maxConns    = 256
	maxStreams  = 128             // of maxConns
	headTimeout = 5 * time.Second // to read a request's head, and as long for its body
	idleTimeout = time.Minute
	sendTimeout = 10 * time.Second // of a response, or of one event
	askTimeout  = 2 * time.Second  // of requests to the store and to PHP-FPM
	profileTime = 10 * time.Minute // of a profile, whose length the operator chooses
	maxHead     = 16 << 10
)

// limited closes connections beyond its limit at once: an error is better than an unbounded wait.
type limited struct {
	net.Listener
	free chan struct{} // has one element per open connection
}

func newLimited(l net.Listener) *limited {
	return &limited{Listener: l, free: make(chan struct{}, maxConns)}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: nc, leave: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			_ = nc.Close()
		}
	}
}

// limitedConn frees its place when it is closed. leave counts once, because net/http may close a conn again.
type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
