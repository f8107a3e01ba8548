// Package memcached is one memcached as a kv.Server: its transport, whether it is up, and whether it may have lost what
// it had. It knows items and no locks, and trusts an address to be one memcached and no proxy to several.
//
// A server is reached over a bounded number of connections, in lanes. It is watched over one more, which notices that
// the server is gone or back, and sends a heartbeat. While it is known to be down, requests fail without being sent.
//
// An item of a name of the user's choice is the server's epoch. Only a restart or a flush removes it. If it is missing
// or another one, all items may be lost: then a grace begins, in which those that know what was there make it again.
package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// Server is one memcached: how it is reached, whether it is up, and whether it may have lost what it had. It knows
// items and no locks. While it is known to be down, requests fail without being sent.
type Server struct {
	addr    netaddr.Addr
	options Options
	hooks   kv.Hooks
	kv.Figures

	// What is in flight, by its kind. The watcher has a connection of its own.
	taking   *lane // for takes and checks
	touching *lane
	writing  *lane
	polling  *lane
	reading  *lane

	touches touches

	health health
	epochs epochs
}

// Options say how a server is reached. Timeout and Epoch must be set.
type Options struct {
	Timeout            time.Duration // of one round trip, with the dial if it needs one
	Epoch              string        // the name of the item that shows whether items were lost
	TLS                *tls.Config   // nil: none. ServerName may be left to the address
	Username, Password string        // for memcached -Y; Username "": none

	// Dial connects to a server; nil: as net.Dialer does. TLS and authentication come on top.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// What may be in flight on a server at once, each over a connection of its own, of which memcached serves 1,024 by
// default. All of them may idle. With the watcher's it makes maxConns.
const (
	maxTaking   = 16
	maxTouching = 4 // of many items each
	maxWriting  = 16
	maxPolling  = 1
	maxReading  = 2
	maxConns    = maxTaking + maxTouching + maxWriting + maxPolling + maxReading + 1
)

// New makes a server, and sends nothing. Hooks that are nil do nothing. The caller has it watched, and closes it.
func New(a netaddr.Addr, o Options, h kv.Hooks) *Server {
	for _, hook := range []*func(){&h.Up, &h.Lost, &h.Begun, &h.Alive} {
		if *hook == nil {
			*hook = func() {}
		}
	}
	if h.Down == nil {
		h.Down = func(error) {}
	}
	v := &Server{addr: a, options: o, hooks: h}
	v.health.timeout, v.health.onUp = o.Timeout, h.Up
	v.health.onDown = func(err error) {
		v.closeIdle()
		h.Down(err)
	}
	v.epochs.name = o.Epoch
	v.epochs.onSplit = func(now time.Time) { v.health.refuse(now, errSplit, splitRest) }
	v.epochs.onBegun = h.Begun
	v.epochs.onLost = func() {
		v.Count(func(s *kv.ServerStats) { s.Forgot++ })
		h.Lost()
	}
	v.taking, v.touching = newLane(v, maxTaking), newLane(v, maxTouching)
	v.writing, v.polling, v.reading = newLane(v, maxWriting), newLane(v, maxPolling), newLane(v, maxReading)
	v.touches.lane = v.touching
	return v
}

// Name is the server's address.
func (v *Server) Name() string { return v.addr.String() }

// Close closes all connections that idle, which are all when nothing is in flight.
func (v *Server) Close() { v.closeIdle() }

func (v *Server) closeIdle() {
	for _, l := range []*lane{v.taking, v.touching, v.writing, v.polling, v.reading} {
		l.close()
	}
}

// Read reads the named items, without a look at the epoch.
func (v *Server) Read(by kv.Lane, names ...string) (items []*kv.Item, err error) {
	err = v.lane(by).inTurn(true, func(c *wire) error {
		items, err = c.get(names...)
		return err
	})
	return items, err
}

func (v *Server) lane(by kv.Lane) *lane {
	switch by {
	case kv.LaneTouch:
		return v.touching
	case kv.LaneWrite:
		return v.writing
	}
	return v.reading
}

// Write writes an item. An error that is not the server's own answer leaves it open whether it did, but for those of
// kv.NotSent.
func (v *Server) Write(it *kv.Item) error {
	return v.writing.inTurn(false, func(c *wire) error { return c.write(it) })
}

// Touch makes an item live for ttl from now and returns it, without its version, or kv.ErrMissing.
func (v *Server) Touch(name string, ttl time.Duration) (*kv.Item, error) {
	return v.touches.touch(name, ttl)
}

// Take writes an item and reads the named ones and the epoch, in one go and before until. What was written before a
// flush is gone then, and what was written after one comes without the epoch that we know. So a take detects any flush.
func (v *Server) Take(until time.Time, it *kv.Item, names ...string) (items []*kv.Item, err error) {
	return v.withEpoch(names, func(names []string) (items []*kv.Item, err error) {
		err = v.taking.atOnce(until, func(c *wire) error {
			items, err = c.take(it, names)
			return err
		})
		return items, err
	})
}

// Check reads the named items and the epoch, before until.
func (v *Server) Check(until time.Time, names ...string) (items []*kv.Item, err error) {
	return v.withEpoch(names, func(names []string) (items []*kv.Item, err error) {
		err = v.taking.atOnce(until, func(c *wire) error {
			items, err = c.get(names...)
			return err
		})
		return items, err
	})
}

// withEpoch has the epoch read along, and compares it where the server has not refused.
func (v *Server) withEpoch(names []string, read func(names []string) ([]*kv.Item, error)) ([]*kv.Item, error) {
	asked := time.Now()
	items, err := read(append(names[:len(names):len(names)], v.options.Epoch))
	if items == nil {
		return nil, err
	}
	if err == nil && !v.epochs.matches(items[len(names)], asked) {
		err = kv.ErrEpoch
	}
	return items[:len(names)], err
}

// maxLists is how many lists of names a poll reads by one command.
const maxLists = 100

// Poll reads many lists of names and the epoch in one round trip, and makes the touched items live for ttl from now.
func (v *Server) Poll(lists [][]string, touch []string, ttl time.Duration) ([][]*kv.Item, error) {
	asked := time.Now()
	commands := [][]string{{v.options.Epoch}}
	for i, names := range lists {
		if i > 0 && i%maxLists == 0 {
			commands = append(commands, nil)
		}
		last := len(commands) - 1
		commands[last] = append(commands[last], names...)
	}
	var answers [][]*kv.Item
	err := v.polling.inTurn(true, func(c *wire) (err error) {
		answers, err = c.poll(commands, touch, ttl)
		return err
	})
	if err != nil {
		return nil, err
	}
	epoch, all := answers[0][0], slices.Concat(answers...)[1:]
	if !v.epochs.matches(epoch, asked) {
		return nil, kv.ErrEpoch
	}
	found := make([][]*kv.Item, len(lists))
	for i, names := range lists {
		found[i], all = all[:len(names)], all[len(names):]
	}
	return found, nil
}

// WriteAll writes the items in one round trip.
func (v *Server) WriteAll(items []*kv.Item) error {
	return v.polling.inTurn(false, func(c *wire) error {
		_, err := c.writeAll(items)
		return err
	})
}

// State returns what is known of the server.
func (v *Server) State() (s kv.State) {
	v.epochs.report(&s)
	if v.health.report(&s); s.Down != nil {
		s.Down = v.named(s.Down)
	}
	return s
}

// Stats returns the figures of the server as they are now.
func (v *Server) Stats() kv.ServerStats {
	s := v.Counted()
	s.Server, s.Grace = v.addr.String(), !v.State().Granting()
	v.health.count(&s)
	return s
}

// dialError is returned when no connection could be made.
type dialError struct{ cause error }

func (e *dialError) Error() string        { return e.cause.Error() }
func (e *dialError) Unwrap() error        { return e.cause }
func (e *dialError) Is(target error) bool { return target == kv.ErrNotSent }

func (v *Server) named(err error) error { return fmt.Errorf("memcached %s: %w", v.addr, err) }

// broken reports whether the connection ended, as stale ones do. The request may have reached the server or not.
func broken(err error) bool {
	var dial *dialError
	return !errors.As(err, &dial) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

// unreachable reports whether the next request would fare no better, and may cost a timeout.
func unreachable(err error) bool {
	var dial *dialError
	return kv.TimedOut(err) || errors.As(err, &dial) && !errors.Is(err, kv.ErrEpoch)
}

var _ kv.Server = (*Server)(nil)
