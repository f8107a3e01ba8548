// Package memcachelock is a sessionlock.Store in memcached: gates that are given the same servers and prefix meet
// the same locks. It joins the locks of internal/sharedlock with the servers of internal/memcached, and knows what both
// have to be given. It trusts an address to be one memcached and no proxy to several.
//
// A lock is an item named prefix + the 32 hex digits of its sessionlock.Key: internal/sharedlock/value.go has its
// value. Of several servers it is on number crc32(name) modulo their count, in the order of Options.Servers, by the CRC
// of IEEE 802.3; one that is down is not replaced. With Quorum it is on all, and most make a lease. Next to it is the
// line of the gates that wait (name + ":line"), and once per server its epoch (prefix + "epoch"): if that has gone, so
// may have the leases. In prefix + "fleet" hosts note what they have to agree about.
package memcachelock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/internal/memcached"
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// Options describe a Store. All but Servers has a default.
type Options struct {
	Servers []netaddr.Addr // the same, in the same order, on all hosts
	Timeout time.Duration  // of one round trip, with the dial if it needs one; zero: 250 ms
	Lease   time.Duration  // the longest that a lease lives without renewal; whole seconds, at least 3; zero: 10 s
	Prefix  string         // of all names in memcached; "" is "fpm-gate:"
	Quorum  bool           // the servers are copies, an odd number of them and at least 3

	// MaxPollRate bounds how often in a second the store looks at locks that it waits for, all together: a look is at
	// one lock on one server. Where many are waited for, each is looked at less often. Zero: 10,000.
	MaxPollRate int

	Gate string // names the holder, for operators
	Host string // "": the host's name

	// The following must be the same on all hosts. The store does not use it, but notices a host that differs. Realms
	// has the gates' realms, by the gates' names.
	Secret []byte
	Realms map[string]string

	TLS                *tls.Config // nil: plain TCP. ServerName may be left to the address.
	Username, Password string      // for memcached -Y; Username "": none

	// Dial connects to a server; nil: as net.Dialer does. TLS and authentication come on top.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// OnEvent is called when the state of a server or a lease changes, from goroutines of the store's own. It must not
	// call the store, and should return soon. It may be nil.
	OnEvent func(Event)
}

// Limits of what New accepts, and what it takes for zero.
const (
	DefaultTimeout = 250 * time.Millisecond
	DefaultLease   = 10 * time.Second
	DefaultPrefix  = "fpm-gate:"

	DefaultMaxPollRate = 10_000

	MinLease = 3 * time.Second // an item with a TTL of N seconds may live for N−1
	MaxLease = time.Hour

	maxPrefix = 128 // a name has at most 250 bytes
)

// Store keeps leases in memcached. It is made by New, and used by many goroutines and any number of managers.
type Store = sharedlock.Store

// What a store reports.
type (
	Stats     = sharedlock.Stats
	Event     = sharedlock.Event
	EventKind = sharedlock.EventKind
)

// The kinds of events.
const (
	ServerDown    = sharedlock.ServerDown
	ServerUp      = sharedlock.ServerUp
	ServerForgot  = sharedlock.ServerForgot
	LeaseRegained = sharedlock.LeaseRegained
	LeaseLost     = sharedlock.LeaseLost
	LeaseGone     = sharedlock.LeaseGone
	FleetDiffers  = sharedlock.FleetDiffers
	FleetAgrees   = sharedlock.FleetAgrees
)

// New makes a store, and begins to watch its servers. It does not wait for them: one that is down makes the locks
// that need it fail until it is back. The caller closes it.
func New(o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	var servers []kv.Open
	for _, a := range o.Servers {
		servers = append(servers, func(h kv.Hooks) kv.Server { return memcached.New(a, o.forServers(), h) })
	}
	return sharedlock.New(o.forLocks(), servers...), nil
}

// forLocks are the options that the locks need.
func (o *Options) forLocks() sharedlock.Options {
	return sharedlock.Options{
		Timeout: o.Timeout, Lease: o.Lease, Prefix: o.Prefix, Quorum: o.Quorum, MaxPollRate: o.MaxPollRate,
		Gate: o.Gate, Host: o.Host, Secret: o.Secret, Realms: o.Realms, OnEvent: o.OnEvent,
	}
}

// forServers are the options that a server needs.
func (o *Options) forServers() memcached.Options {
	return memcached.Options{
		Timeout: o.Timeout, Epoch: o.Prefix + "epoch", TLS: o.TLS,
		Username: o.Username, Password: o.Password, Dial: o.Dial,
	}
}

// complete fills in the defaults and checks the rest.
func (o *Options) complete() error {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.MaxPollRate == 0 {
		o.MaxPollRate = DefaultMaxPollRate
	}
	if o.Host == "" {
		o.Host, _ = os.Hostname() // only for those who ask
	}
	o.Lease = (o.Lease + time.Second - 1).Truncate(time.Second)
	switch n := len(o.Servers); {
	case n == 0:
		return errors.New("there must be at least one memcached server")
	case o.Quorum && (n < 3 || n%2 == 0):
		return fmt.Errorf("a quorum needs an odd number of servers, at least 3; got %d", n)
	case o.Timeout < 0:
		return fmt.Errorf("timeout must be more than 0s; got %q", o.Timeout)
	case o.MaxPollRate < 0:
		return fmt.Errorf("max poll rate must be more than 0; got %d", o.MaxPollRate)
	case o.Lease < MinLease || o.Lease > MaxLease:
		return fmt.Errorf("lease must be between %v and %v; got %q", MinLease, MaxLease, o.Lease)
	}
	return checkPrefix(o.Prefix)
}

func checkPrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("prefix must have at most %d bytes; got %d", maxPrefix, len(prefix))
	}
	for i := range len(prefix) {
		if prefix[i] <= ' ' || prefix[i] == 0x7f {
			return fmt.Errorf("prefix must have no space and no control character; got %q", prefix)
		}
	}
	return nil
}

// Report is what a probe has found out about a server.
type Report = memcached.Report

// Probe asks each server of o whether it is fit for locks, all of them at once, and comes back after four seconds,
// after six if a server keeps items for too long, or when ctx is done. It leaves nothing there. The reports are in the
// order of the servers.
func Probe(ctx context.Context, o Options) ([]Report, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	locks := o.forLocks()
	reports := make([]Report, len(o.Servers))
	var all sync.WaitGroup
	for i, a := range o.Servers {
		all.Go(func() {
			r := memcached.Probe(ctx, a, o.forServers(), o.Prefix, locks.NotesName(), sharedlock.NotesWithin)
			r.Warnings = append(r.Warnings, locks.Disagreements(len(o.Servers), i, r.Before, r.After)...)
			reports[i] = r
		})
	}
	all.Wait()
	return reports, nil
}
