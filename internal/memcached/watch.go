package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// A server is watched over a connection of its own. So it is seen at once that it has gone, it is looked for until it
// is back, and a flush is noticed, so that hardly a request has to find out.
const (
	heartbeat = 100 * time.Millisecond // until a flush is noticed by a gate that sends nothing else
	minRedial = 10 * time.Millisecond  // the first pause after a failure; each further one is twice as long
	maxRedial = 250 * time.Millisecond // so a server that is back is noticed this soon
)

// maxShort is how many connections in a row may end before their first heartbeat. One more, and the server is taken
// for down until it keeps one for as long.
const maxShort = 2

var errShort = errors.New("it closes its connections at once")

// Watch watches the server until ctx is done.
func (v *Server) Watch(ctx context.Context) {
	for pause, short := minRedial, 0; ctx.Err() == nil; {
		err := v.watchConn(ctx, short > maxShort, func() { pause, short = minRedial, 0 })
		if ctx.Err() != nil {
			return
		}
		if !kv.TimedOut(err) { // a timeout is no sign of a server that closes connections
			short++
		}
		switch {
		case short > maxShort && (broken(err) || errors.Is(err, kv.ErrEpoch)):
			err = fmt.Errorf("%w: %w", errShort, err)
		case errors.Is(err, kv.ErrEpoch):
			continue // the next connection knows the new epoch
		case broken(err):
			v.closeIdle() // its connections are as dead; whether the server is, the next dial shows
			continue
		}
		v.health.fail(time.Now(), err)
		v.health.staySilent()
		paused := time.Now()
		sleep(ctx, pause)
		v.health.mindStall(paused, pause)
		pause = min(2*pause, maxRedial)
	}
}

// watchConn watches over one connection, until it fails. If the server is suspect, it has to answer a heartbeat before
// it counts as up. alive is called with each of them.
func (v *Server) watchConn(ctx context.Context, suspect bool, alive func()) error {
	asked := time.Now()
	c, err := v.dialWith(ctx, asked.Add(v.options.Timeout))
	v.health.mindStall(asked, v.options.Timeout)
	if err != nil {
		return err
	}
	defer c.nc.Close()
	defer context.AfterFunc(ctx, func() { c.nc.Close() })()
	for ; ; suspect = false {
		switch {
		case suspect:
		case v.health.recover(asked):
			v.hooks.Alive()
		default:
			v.health.staySilent()
		}
		idle := time.Now()
		err := v.idle(c)
		v.health.mindStall(idle, heartbeat)
		if err != nil {
			return err
		}
		asked = time.Now()
		_ = c.nc.SetDeadline(asked.Add(v.options.Timeout))
		err = v.beat(c.wire, asked)
		v.health.mindStall(asked, v.options.Timeout)
		if err != nil {
			return err
		}
		alive()
	}
}

// idle waits for the next heartbeat. The server has nothing to say until then but that it has gone.
func (v *Server) idle(c *conn) error {
	_ = c.nc.SetDeadline(time.Now().Add(heartbeat))
	switch _, err := c.r.Peek(1); {
	case err == nil: // no memcached: it speaks only when it is spoken to
		return errors.New("unexpected data from the server")
	case kv.TimedOut(err):
		return nil
	default:
		return err
	}
}

// beat checks the epoch, and has the rest of a heartbeat done.
func (v *Server) beat(c *wire, asked time.Time) error {
	items, err := c.get(append([]string{v.options.Epoch}, v.hooks.Names...)...)
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	if err := v.epochs.check(c, asked, items[0]); err != nil || v.hooks.Beat == nil {
		return err
	}
	it := v.hooks.Beat(items[1:]) // what the user notes on the server, if that has changed
	if it == nil {
		return nil
	}
	if err := c.write(it); !kv.Answered(err) {
		return err
	}
	return nil // also if the server has refused: another host was faster, and the next heartbeat reads what it wrote
}

// sleep sleeps for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// dial makes a connection that can be used: it is to a server that has the epoch we know. So a server that was
// restarted is noticed before it is asked for anything.
func (v *Server) dial(until time.Time) (*conn, error) { return v.dialWith(context.Background(), until) }

func (v *Server) dialWith(ctx context.Context, until time.Time) (*conn, error) {
	begun := time.Now()
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	nc, err := v.connect(ctx)
	if err != nil {
		return nil, &dialError{fmt.Errorf("dial: %w", err)}
	}
	_ = nc.SetDeadline(until)
	c := &conn{newWire(nc), nc}
	if err := v.greet(c.wire, begun); err != nil {
		nc.Close()
		return nil, &dialError{err}
	}
	return c, nil
}

// connect makes a connection, with TLS if the options say so, and sends no command.
func (v *Server) connect(ctx context.Context) (net.Conn, error) {
	dial := v.options.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, v.addr.Network, v.addr.Address)
	if err != nil || v.options.TLS == nil {
		return nc, err
	}
	config := v.options.TLS
	if config.ServerName == "" {
		config = config.Clone() // the options are shared by all servers
		config.ServerName, _, _ = net.SplitHostPort(v.addr.Address)
	}
	tc := tls.Client(nc, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// greet makes a new connection ready for requests: it logs in, and checks the epoch, which takes a round trip each.
func (v *Server) greet(c *wire, begun time.Time) error {
	if o := v.options; o.Username != "" {
		if err := c.authenticate(o.Username, o.Password); err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
	}
	items, err := c.get(v.options.Epoch)
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	return v.epochs.check(c, begun, items[0])
}
