package memcachelock

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// A store watches each of its servers over a connection of its own. It sees at once that a server has gone, looks
// for it until it is back, and asks for the epoch all the while, so that hardly a request has to find out.
const (
	heartbeat = 100 * time.Millisecond // until a flush is noticed by a gate that asks for nothing else
	minRedial = 10 * time.Millisecond
	maxRedial = 250 * time.Millisecond
)

// grace is how long a server that may have lost its leases grants no new ones: until all gates have seen it, which
// takes a redial or a heartbeat, and have added theirs again.
const grace = time.Second

// watch watches the server until ctx is done.
func (v *server) watch(ctx context.Context) {
	for pause := minRedial; ctx.Err() == nil; {
		err := v.watchConn(ctx, func() { pause = minRedial })
		if ctx.Err() != nil {
			return
		}
		switch {
		case errors.Is(err, errForgot):
			continue // the next connection knows the new epoch
		case broken(err):
			v.closeIdle() // its connections are as dead; whether the server is, the next dial tells
			continue
		}
		v.fail(time.Now(), err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxRedial)
	}
}

// watchConn watches over one connection, until it fails.
func (v *server) watchConn(ctx context.Context, alive func()) error {
	dialCtx, cancel := context.WithTimeout(ctx, v.store.options.Timeout)
	defer cancel()
	asked := time.Now()
	nc, err := v.dial(dialCtx)
	if err != nil {
		return err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	c := newWire(nc)
	for {
		alive()
		if v.recover(asked) {
			v.addAgain()
			v.sweep()
		}
		if err := v.idle(nc, c); err != nil {
			return err
		}
		asked = time.Now()
		_ = nc.SetDeadline(asked.Add(v.store.options.Timeout))
		if err := v.checkEpoch(c); err != nil {
			return err
		}
	}
}

// idle waits for the next heartbeat. The server has nothing to say until then but that it has gone.
func (v *server) idle(nc net.Conn, c *wire) error {
	_ = nc.SetDeadline(time.Now().Add(heartbeat))
	switch _, err := c.r.Peek(1); {
	case err == nil:
		return errors.New("the server speaks without being asked")
	case timedOut(err):
		return nil
	default:
		return err
	}
}

// dial makes a connection that can be used: it is to a server that has the epoch we know. So a server that was
// restarted is noticed before it is asked for anything.
func (v *server) dial(ctx context.Context) (net.Conn, error) {
	begun := time.Now()
	nc, err := v.connect(ctx)
	if err != nil {
		return nil, &dialError{fmt.Errorf("dial: %w", err)}
	}
	_ = nc.SetDeadline(begun.Add(v.store.options.Timeout))
	if err := v.greet(newWire(nc)); err != nil {
		nc.Close()
		return nil, &dialError{err}
	}
	return &freshConn{nc, begun.Add(v.store.options.Timeout)}, nil
}

func (v *server) connect(ctx context.Context) (net.Conn, error) {
	dial := v.store.options.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, v.addr.Network, v.addr.Address)
	if err != nil || v.store.options.TLS == nil {
		return nc, err
	}
	config := v.store.options.TLS
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(v.addr.Address)
	}
	tc := tls.Client(nc, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

func (v *server) greet(c *wire) error {
	if o := v.store.options; o.Username != "" {
		if err := c.authenticate(o.Username, o.Password); err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
	}
	return v.checkEpoch(c)
}

// freshConn takes the time of its dial from that of its first question.
type freshConn struct {
	net.Conn
	until time.Time // zero from the second question on
}

func (c *freshConn) SetDeadline(t time.Time) error {
	if !c.until.IsZero() && c.until.Before(t) {
		t = c.until
	}
	c.until = time.Time{}
	return c.Conn.SetDeadline(t)
}

// checkEpoch reads the epoch, or begins a new one. The error is errForgot if it is not the one that we know.
func (v *server) checkEpoch(c *wire) error {
	name := v.store.epochName()
	epoch, err := c.get(name)
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	if epoch == "" {
		epoch = newEpoch()
		err := c.store("add", name, epoch, 0)
		if errors.Is(err, errNotStored) {
			epoch, err = c.get(name)
		}
		if err != nil {
			return fmt.Errorf("begin an epoch: %w", err)
		}
	}
	return v.meet(epoch)
}

// newEpoch is the Unix time in milliseconds, and a random word that tells it from all others.
func newEpoch() string { return fmt.Sprintf("%d %s", time.Now().UnixMilli(), rand.Text()) }

// isYoung says whether an epoch that we never met began just now. Where the clocks of two hosts differ by more than
// the grace, it guesses wrong.
func isYoung(epoch string) bool {
	word, _, _ := strings.Cut(epoch, " ")
	began, err := strconv.ParseInt(word, 10, 64)
	return err == nil && time.Since(time.UnixMilli(began)).Abs() < grace
}

// meet compares an epoch of the server, "" if it has none, with the one that we know. The error is errForgot if a
// grace has begun.
func (v *server) meet(epoch string) error {
	v.mu.Lock()
	known, met := v.epoch, v.met
	v.epoch, v.met = epoch, true
	lost := met && epoch != known && known != "" // else it was noticed when it had none
	begins := lost || !met && isYoung(epoch)
	if begins {
		v.grace = time.Now().Add(grace)
	}
	v.forgot = v.forgot || lost
	v.mu.Unlock()
	if lost {
		v.counts.forgot.Add(1)
		v.store.tell(Event{Kind: ServerForgot, Server: v.addr})
		v.addAgain()
	}
	if begins {
		return errForgot
	}
	return nil
}

// knows says whether the server has the epoch that we know, as far as was read with other items. If it has not, a
// grace begins.
func (v *server) knows(epoch *memcache.Item) bool {
	if epoch == nil {
		_ = v.meet("")
		return false
	}
	return v.meet(string(epoch.Value)) == nil
}

// inGrace says whether the server must not grant new leases yet.
func (v *server) inGrace() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Now().Before(v.grace)
}

// doubt is a write of which nobody knows whether the server got it. It may get it much later: a server that hung
// reads what was sent to it when it goes on.
type doubt struct {
	lease *lease
	asked time.Time // when it was looked at; zero: not yet
}

// maxDoubts bounds what is remembered. Beyond that, leases end by their TTL.
const maxDoubts = 4096

// again is how long after the first look a server is looked at a second time.
const again = time.Second

func (v *server) doubtful(l *lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.doubts) < maxDoubts {
		v.doubts = append(v.doubts, doubt{lease: l})
	}
}

// sweep deletes what doubtful writes have left, if the server has an answer.
func (v *server) sweep() {
	v.mu.Lock()
	var due []doubt
	var later []doubt
	for _, d := range v.doubts {
		if d.asked.IsZero() || time.Since(d.asked) >= again {
			due = append(due, d)
		} else {
			later = append(later, d)
		}
	}
	v.doubts = later
	v.mu.Unlock()
	if len(due) > 0 {
		v.store.background.Go(func() { v.resolve(due) })
	}
}

func (v *server) resolve(due []doubt) {
	for _, d := range due {
		t := v.ticket(d.lease.key)
		t.wait()
		r := replica{lease: d.lease, server: v}
		over, err := r.removeStray()
		t.leave()
		if first := d.asked.IsZero(); !over && (first || err != nil) {
			if err == nil {
				d.asked = time.Now()
			}
			v.mu.Lock()
			v.doubts = append(v.doubts, d)
			v.mu.Unlock()
		}
	}
}
