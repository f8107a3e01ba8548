// Package memcachelock is a sessionlock.Store in memcached: gates that are given the same servers and prefix meet
// the same locks. It knows nothing of requests, and trusts an address to be one memcached and no proxy to several.
//
// A lock is an item named prefix + the 32 hex digits of its sessionlock.Key: value.go has its value. Of several
// servers it is on number crc32(name) modulo their count, in the order of Options.Servers, by the CRC of IEEE 802.3
// as gomemcache's own selector; one that is down is not replaced. With Quorum it is on all, and most make a lease.
// Beside it is the line of the gates that wait (name + ":line"), and once a server its epoch (prefix + "epoch"): if
// that has gone, so may have the leases.
package memcachelock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Addr is where a server listens.
type Addr struct {
	Network string // tcp or unix
	Address string // host:port, or a path
}

// String is the address as the configuration has it: host:port or unix:/path.
func (a Addr) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

// Options describe a Store. All but Servers has a default.
type Options struct {
	Servers []Addr        // the same, in the same order, on all hosts
	Timeout time.Duration // of one round trip, with the dial if it needs one; zero: 250 ms
	Lease   time.Duration // the longest that a lease lives without renewal; whole seconds, at least 3; zero: 10 s
	Prefix  string        // of all names in memcached; "" is "fpm-gate:"
	Quorum  bool          // the servers are copies, an odd number of them and at least 3

	// MaxPollRate bounds how many questions a second the store asks for the locks that it waits for, all together:
	// where many wait, each asks more seldom, down to twice a second. Zero: 10,000.
	MaxPollRate int

	Gate string // who holds, for those who ask
	Host string // "": the host's name

	TLS                *tls.Config // nil: plain TCP. ServerName may be left to the address.
	Username, Password string      // for memcached -Y; Username "": none

	// Dial connects to a server; nil: as net.Dialer does. TLS and authentication come on top.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// OnEvent is told what became of a server or of a lease. It is called from goroutines of the store's own, must
	// not call the store, and should return soon. Nil: nobody is told.
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
	maxLabel  = 255 // of a gate or host
)

// Store keeps leases in memcached. It is made by New, and used by many goroutines and any number of managers.
type Store struct {
	options Options
	servers []*server
	seconds int32 // the TTL of a lease, as memcached is told

	stop       context.CancelFunc
	watchers   sync.WaitGroup
	background sync.WaitGroup // what goes on beside the requests
	counts     struct{ lost atomic.Uint64 }

	mu     sync.Mutex
	leases map[sessionlock.Key]*lease
	waits  map[waitKey]*wait
}

// New makes a store, and begins to watch its servers. It does not wait for them: one that is down makes the locks
// that need it fail until it is back. Who makes a store closes it.
func New(o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{
		options: o,
		seconds: seconds(o.Lease),
		stop:    stop,
		leases:  make(map[sessionlock.Key]*lease),
		waits:   make(map[waitKey]*wait),
	}
	for _, a := range o.Servers {
		s.servers = append(s.servers, newServer(s, a))
	}
	for _, v := range s.servers {
		s.watchers.Go(func() { v.watch(ctx) })
	}
	return s, nil
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
	o.Gate, o.Host = cut(o.Gate, maxLabel), cut(o.Host, maxLabel)
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

func cut(s string, n int) string { return s[:min(n, len(s))] }

// seconds is d as memcached counts, rounded up.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

// Close waits for the releases that are on their way, each no longer than a timeout or two, and closes all
// connections. Locks that are held end by their TTL. No other method may be called during Close and after it.
func (s *Store) Close() error {
	s.stop()
	s.watchers.Wait()
	s.background.Wait()
	var errs []error
	for _, v := range s.servers {
		v.taker.close()
		errs = append(errs, v.client.Close())
	}
	return errors.Join(errs...)
}

// TTL is a second less than memcached is told: that is how long an item lives at least.
func (s *Store) TTL() time.Duration { return time.Duration(s.seconds-1) * time.Second }

// Acquire asks for the lease of key, at first without a look. Who was told ErrHeld looks before he asks again.
// It takes one timeout at most, whatever ctx says.
func (s *Store) Acquire(_ context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	l := s.newLease(key, token)
	w := s.waitOf(key, token)
	if w != nil {
		if err := l.look(w); err != nil {
			return nil, s.held(err, w)
		}
	}
	err := l.take()
	switch {
	case err == nil:
		s.begin(l, w)
		return l, nil
	case w == nil && errors.Is(err, sessionlock.ErrHeld):
		w = s.beginWait(key, token)
	}
	return nil, s.held(err, w)
}

// begin notes that l is held, and is waited for no more.
func (s *Store) begin(l *lease, w *wait) {
	s.mu.Lock()
	s.leases[l.key] = l
	if w != nil {
		delete(s.waits, w.waitKey)
	}
	s.mu.Unlock()
	if w != nil && w.inLine {
		s.background.Go(func() { s.leaveLine(l.key, w.manager) })
	}
}

// end notes that l is held no more.
func (s *Store) end(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.key] == l {
		delete(s.leases, l.key)
	}
}

// has says whether somebody of this process has the lease of key.
func (s *Store) has(key sessionlock.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[key] != nil
}

// serversOf returns the servers that have the lock of key: one, or with a quorum all. The first that is up among
// them has its line.
func (s *Store) serversOf(key sessionlock.Key) []*server {
	n := len(s.servers)
	i := int(crc32.ChecksumIEEE([]byte(s.lockName(key))) % uint32(n))
	if !s.options.Quorum {
		return s.servers[i : i+1]
	}
	all := make([]*server, 0, n)
	all = append(all, s.servers[i:]...)
	return append(all, s.servers[:i]...)
}

func (s *Store) lockName(key sessionlock.Key) string { return s.options.Prefix + key.String() }
func (s *Store) lineName(key sessionlock.Key) string { return s.lockName(key) + ":line" }
func (s *Store) epochName() string                   { return s.options.Prefix + "epoch" }

// majority is how many of n make a lease.
func majority(n int) int { return n/2 + 1 }
