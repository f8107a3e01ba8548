// Package memcachelock is a sessionlock.Store in memcached: gates that are given the same servers and prefix meet
// the same locks. It knows nothing of requests, and trusts an address to be one memcached and no proxy to several.
//
// A lock is an item named prefix + the 32 hex digits of its sessionlock.Key: value.go has its value. Of several
// servers it is on number crc32(name) modulo their count, in the order of Options.Servers, by the CRC of IEEE
// 802.3; one that is down is not replaced. With Quorum it is on all, and most make a lease.
// Beside it is the line of the gates that wait (name + ":line"), and once a server its epoch (prefix + "epoch"): if
// that has gone, so may have the leases. In prefix + "fleet" hosts note what they have to agree about.
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

	// MaxPollRate bounds how often in a second the store looks at locks that it waits for, all together: a look is at
	// one lock on one server. Where many are waited for, each is looked at more seldom. Zero: 10,000.
	MaxPollRate int

	Gate string // names the holder, for operators
	Host string // "": the host's name

	// What hosts have to agree about beside the above, which the store itself does not need: it notices a host that
	// does not. Realms are those of the gates, by the gates' names.
	Secret []byte
	Realms map[string]string

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
	label   atomic.Pointer[label]
	members []*member
	seconds int32 // the TTL of a lease, as memcached is told
	pace    *pace
	retired atomic.Bool

	stop       context.CancelFunc
	watchers   sync.WaitGroup
	background sync.WaitGroup // what goes on concurrently with the requests
	counts     struct{ lost atomic.Uint64 }

	mu     sync.Mutex
	leases map[sessionlock.Key]*lease
	waits  map[waitKey]*wait
}

// label is what a store says of the gates that use it.
type label struct {
	gate   string
	realms map[string]string
}

// New makes a store, and begins to watch its servers. It does not wait for them: one that is down makes the locks
// that need it fail until it is back. The caller closes it.
func New(o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{
		options: o,
		seconds: seconds(o.Lease),
		pace:    &pace{every: max(1, time.Second/time.Duration(o.MaxPollRate))},
		stop:    stop,
		leases:  make(map[sessionlock.Key]*lease),
		waits:   make(map[waitKey]*wait),
	}
	s.Relabel(o.Gate, o.Realms)
	for i, a := range o.Servers {
		s.members = append(s.members, newMember(s, a, i))
	}
	for _, m := range s.members {
		s.watchers.Go(func() { m.watch(ctx) })
		s.watchers.Go(func() { m.poller.run(ctx) })
	}
	return s, nil
}

// Relabel changes Options.Gate and Options.Realms.
func (s *Store) Relabel(gate string, realms map[string]string) {
	s.label.Store(&label{cut(gate, maxLabel), realms})
}

// Retire is called when another store takes this one's place: it is still used for what it holds, and no longer
// compared with other hosts.
func (s *Store) Retire() { s.retired.Store(true) }

func (s *Store) gateName() string { return s.label.Load().gate }

// forServers are the options that a server needs.
func (o *Options) forServers() serverOptions {
	return serverOptions{
		timeout: o.Timeout, epoch: o.Prefix + "epoch", tls: o.TLS,
		username: o.Username, password: o.Password, dial: o.Dial,
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
	o.Host = cut(o.Host, maxLabel)
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
	for _, m := range s.members {
		m.close()
	}
	return nil
}

// TTL is a second less than memcached is told: that is how long an item lives at least.
func (s *Store) TTL() time.Duration { return time.Duration(s.seconds-1) * time.Second }

// Acquire asks for the lease of key. The first attempt writes without reading. After that the store looks at the lock
// by itself, and says by a sessionlock.RetryError when it is worth asking again; an attempt before that sends nothing.
// It takes one timeout at most, whatever ctx says.
func (s *Store) Acquire(_ context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	l := s.newLease(key, token)
	w := s.waitOf(key, token)
	if w != nil {
		if !w.takeReady() && !s.isAwayFor(key, w) {
			return nil, s.retry(w, nil)
		}
		w.prepare(l)
	}
	found, err := l.take()
	if err == nil {
		s.begin(l, w)
		return l, nil
	}
	if errors.Is(err, sessionlock.ErrStore) && s.isFinal(key, w, err) {
		return nil, err
	}
	if w == nil {
		w = s.beginWait(l)
	}
	w.again(found)
	return nil, s.retry(w, err)
}

// isFinal reports whether err is the last word of the store: it is away, or has refused, and no other gate's lease is
// known that may still live.
func (s *Store) isFinal(key sessionlock.Key, w *wait, err error) bool {
	return s.isAwayFor(key, w) || errors.Is(err, errMalformed) && (w == nil || !w.knowsHolder(time.Time{}))
}

// isAwayFor reports whether so many servers of key are away that no majority can answer, and no other gate's lease is
// known that may still live.
func (s *Store) isAwayFor(key sessionlock.Key, w *wait) bool {
	members := s.membersOf(key)
	away := 0
	var since time.Time
	for _, m := range members {
		if m.isAway() {
			away++
			if silent := m.silentSince(); silent.After(since) {
				since = silent
			}
		}
	}
	return away > len(members)-majority(len(members)) && (w == nil || !w.knowsHolder(since))
}

// retry is what Acquire returns of a wait; err is why the last attempt failed, if there was one.
func (s *Store) retry(w *wait, err error) error {
	if err == nil {
		err = s.reachable(w.key)
	}
	if err == nil || errors.Is(err, sessionlock.ErrStore) && w.knowsHolder(time.Now()) {
		err = sessionlock.ErrHeld
	}
	return &sessionlock.RetryError{Err: err, Ready: w.ready}
}

// reachable is nil if a majority of the servers of key is up.
func (s *Store) reachable(key sessionlock.Key) error {
	var down []error
	members := s.membersOf(key)
	for _, m := range members {
		if err := m.downErr(); err != nil {
			down = append(down, m.named(err))
		}
	}
	if len(members)-len(down) >= majority(len(members)) {
		return nil
	}
	return storeError(errors.Join(down...))
}

// begin notes that l is held, and no longer waited for. If its servers may have lost it before it was noted, it is added
// again, as nothing else would do that before its renewal.
func (s *Store) begin(l *lease, w *wait) {
	s.hold(l, w)
	for i, r := range l.replicas {
		if r.member.losses() != l.losses[i] {
			s.background.Go(func() { l.addAgain(r.member, true) })
		}
	}
}

func (s *Store) hold(l *lease, w *wait) {
	s.mu.Lock()
	s.leases[l.key] = l
	s.mu.Unlock()
	if s.endWait(w) {
		s.background.Go(func() { s.leaveLine(l.key, w.manager) })
	}
}

// Adopt returns the lease of a lock that is held although no majority of its servers could be asked for it. It is added
// where they are up again, unless another gate has the lock by then.
func (s *Store) Adopt(key sessionlock.Key, token sessionlock.Token) sessionlock.Lease {
	l := s.newLease(key, token)
	l.won = true
	close(l.decided)
	s.hold(l, s.waitOf(key, token))
	return l
}

// end notes that l is no longer held.
func (s *Store) end(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[l.key] == l {
		delete(s.leases, l.key)
	}
}

// has reports whether this process has the lease of key.
func (s *Store) has(key sessionlock.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[key] != nil
}

// membersOf returns the servers that have the lock of key: one, or with a quorum all. The first that is up among
// them has its line.
func (s *Store) membersOf(key sessionlock.Key) []*member {
	n := len(s.members)
	i := int(crc32.ChecksumIEEE([]byte(s.lockName(key))) % uint32(n))
	if !s.options.Quorum {
		return s.members[i : i+1]
	}
	all := make([]*member, 0, n)
	all = append(all, s.members[i:]...)
	return append(all, s.members[:i]...)
}

func (s *Store) lockName(key sessionlock.Key) string { return s.options.Prefix + key.String() }
func (s *Store) lineName(key sessionlock.Key) string { return s.lockName(key) + ":line" }
func (s *Store) epochName() string                   { return s.options.Prefix + "epoch" }
func (s *Store) fleetName() string                   { return s.options.Prefix + "fleet" }
