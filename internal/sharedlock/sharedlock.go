// Package sharedlock is a sessionlock.Store on servers that several hosts share: gates that are given the same servers
// and prefix meet the same locks. It knows leases, and servers only as a kv.Server: no memcached, and no requests.
//
// Read value.go for what is on the servers, then from the bottom up: vote.go (what the servers of a quorum say
// together), ticket.go (the order of what is done to a lock on a server), doubt.go (writes whose answer was lost),
// line.go (the gates that wait), replica.go and lease.go (a lease on one and on all of its servers), wait.go (a gate
// that waits), fleet.go (what hosts have to agree about). This file joins them. docs/DESIGN.md has the words and a
// picture.
package sharedlock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Options describe a Store. Timeout, Lease and MaxPollRate must be set.
type Options struct {
	Timeout time.Duration // of one round trip
	Lease   time.Duration // the longest that a lease lives without renewal, in whole seconds
	Prefix  string        // of all names
	Quorum  bool          // the servers are copies, an odd number of them: a lease is one on most of them

	// MaxPollRate bounds how often in a second the store looks at locks that it waits for, all together: a look is at
	// one lock on one server. Where many are waited for, each is looked at less often.
	MaxPollRate int

	Gate string // names the holder, for operators, as does Host; at most 255 bytes are kept of each
	Host string

	// The following must be the same on all hosts. The store does not use it, but notices a host that differs. Realms
	// has the gates' realms, by the gates' names.
	Secret []byte
	Realms map[string]string

	// OnEvent is called when something has become of a server or of a lease, from goroutines of the store's own. It must
	// not call the store, and should return soon. It may be nil.
	OnEvent func(Event)
}

// maxLabel bounds the names of a gate and a host.
const maxLabel = 255

func cut(s string, n int) string { return s[:min(n, len(s))] }

// Store keeps leases on the servers. It is made by New, and used by many goroutines and any number of managers.
type Store struct {
	cluster
	waits   *waits
	fleet   []*fleetWatch // of the members
	retired atomic.Bool

	stop     context.CancelFunc
	watchers sync.WaitGroup

	mu     sync.Mutex
	leases map[sessionlock.Key]*lease
}

// New makes a store on the given servers, the same in the same order on all hosts, and begins to watch them. It does
// not wait for them: one that is down makes the locks that need it fail until it is back. The caller closes it.
func New(o Options, servers ...kv.Open) *Store {
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{stop: stop, leases: make(map[sessionlock.Key]*lease)}
	s.options = o
	s.options.Host = cut(o.Host, maxLabel)
	s.waits = &waits{
		cluster: &s.cluster, pace: kv.NewPace(o.MaxPollRate), has: s.has,
		all: make(map[waitKey]*wait),
	}
	s.Relabel(o.Gate, o.Realms)
	for i, open := range servers {
		s.open(i, open)
	}
	for _, m := range s.members {
		s.watchers.Go(func() { m.Watch(ctx) })
		s.watchers.Go(func() { m.poller.Run(ctx) })
	}
	return s
}

// open makes the member with the given index.
func (s *Store) open(index int, open kv.Open) {
	m := new(member)
	m.background = &s.background
	m.addLeases = func(all bool) { s.reAdd(m, all) }
	f := newFleetWatch(&s.cluster, index, &s.retired)
	m.Server = open(kv.Hooks{
		Down: func(err error) { s.tell(Event{Kind: ServerDown, Server: m.Name(), Err: err}) },
		Up: func() {
			m.restore.Store(true)
			s.tell(Event{Kind: ServerUp, Server: m.Name()})
		},
		Lost: func() {
			s.tell(Event{Kind: ServerForgot, Server: m.Name()})
			m.reAddAll()
		},
		Begun: m.reAddAll,
		Alive: func() {
			m.reAdd()
			m.sweep()
		},
		Names: []string{s.options.NotesName()},
		Beat:  func(items []*kv.Item) *kv.Item { return f.beat(items[0]) },
	})
	f.member = m
	m.poller = kv.NewPoller(m, s.waits.pace, lineTTL)
	s.members, s.fleet = append(s.members, m), append(s.fleet, f)
}

// reAdd adds the leases to m, where they belong: all of them, or those that it has not got so far.
func (s *Store) reAdd(m *member, all bool) {
	s.mu.Lock()
	ours := make(chan *lease, len(s.leases))
	for _, l := range s.leases {
		ours <- l
	}
	s.mu.Unlock()
	close(ours)
	var workers sync.WaitGroup
	for range min(len(ours), maxAdders) {
		workers.Go(func() {
			for l := range ours {
				l.reAdd(m, all)
			}
		})
	}
	workers.Wait()
}

// maxAdders is how many leases are added to a server at once.
const maxAdders = 16

// Relabel changes Options.Gate and Options.Realms.
func (s *Store) Relabel(gate string, realms map[string]string) {
	s.label.Store(&label{cut(gate, maxLabel), realms})
}

// Retire is called when another store takes this one's place: it is still used for what it holds, and no longer
// compared with other hosts.
func (s *Store) Retire() { s.retired.Store(true) }

// Close waits for the releases that are on their way, each no longer than a timeout or two, and closes all
// connections. Locks that are held end by their TTL. No other method may be called during Close and after it.
func (s *Store) Close() error {
	s.stop()
	s.watchers.Wait()
	s.background.Wait()
	for _, m := range s.members {
		m.Close()
	}
	return nil
}

// TTL is a second less than the servers are sent: that is how long an item lives at least.
func (s *Store) TTL() time.Duration { return s.ttl() }

// Acquire asks for the lease of key. The first attempt writes without reading. After that the store looks at the lock
// by itself, and says by a sessionlock.RetryError when it is worth asking again; an attempt before that sends nothing.
// It takes one timeout at most, whatever ctx says.
func (s *Store) Acquire(_ context.Context, key sessionlock.Key, token sessionlock.Token) (sessionlock.Lease, error) {
	l := s.leaseOf(key, token, time.Now())
	w := s.waits.of(key, token)
	if w != nil {
		if !w.takeReady() && !s.waits.isAwayFor(key, w) {
			return nil, s.retry(w, nil)
		}
		w.prepare(l)
	}
	found, err := l.acquire()
	if err == nil {
		s.begin(l, w)
		return l, nil
	}
	final := errors.Is(err, sessionlock.ErrStore) && s.isFinal(key, w, err)
	if w == nil {
		if final {
			return nil, err
		}
		w = s.waits.begin(l)
	}
	w.lookAgain(found) // after a final answer too: the manager's next request waits by the same w
	if final {
		return nil, err
	}
	return nil, s.retry(w, err)
}

// leaseOf makes a lease that is not held yet.
func (s *Store) leaseOf(key sessionlock.Key, token sessionlock.Token, now time.Time) *lease {
	l := s.newLease(key, token, now)
	l.ended = func() { s.end(l) }
	return l
}

// isFinal reports whether err is the last word of the store: it is away, or has refused, and no other gate's lease is
// known that may still live.
func (s *Store) isFinal(key sessionlock.Key, w *wait, err error) bool {
	return s.waits.isAwayFor(key, w) || errors.Is(err, kv.ErrMalformed) && (w == nil || !w.knowsHolder(time.Time{}))
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
		if err := m.State().Down; err != nil {
			down = append(down, err)
		}
	}
	if len(members)-len(down) >= majority(len(members)) {
		return nil
	}
	return storeError(errors.Join(down...))
}

// begin notes that l is held, and no longer waited for. If its servers may have lost it before it was noted, it is
// added again, as nothing else would do that before its renewal.
func (s *Store) begin(l *lease, w *wait) {
	s.hold(l, w)
	for i, r := range l.replicas {
		if r.member.State().Losses != l.losses[i] {
			s.background.Go(func() { l.reAdd(r.member, true) })
		}
	}
}

func (s *Store) hold(l *lease, w *wait) {
	s.mu.Lock()
	s.leases[l.key] = l
	s.mu.Unlock()
	if s.waits.end(w) {
		s.background.Go(func() { s.leaveLine(l.key, w.manager) })
	}
}

// Adopt returns the lease of a lock that is held although no majority of its servers could be asked for it. It is added
// where they are up again, unless another gate has the lock by then.
func (s *Store) Adopt(key sessionlock.Key, token sessionlock.Token) sessionlock.Lease {
	// The attempt before, with the same token, may have failed in this millisecond. What that has left on a server, now or
	// later, is removed, and this lease's items are not.
	l := s.leaseOf(key, token, time.Now().Add(time.Millisecond))
	l.won = true
	close(l.decided)
	s.hold(l, s.waits.of(key, token))
	return l
}

// Withdraw leaves the line, and passes on the lock if it is kept for this manager by now.
func (s *Store) Withdraw(key sessionlock.Key, token sessionlock.Token) {
	if w := s.waits.of(key, token); s.waits.end(w) {
		s.leaveAndPassOn(w.key, w.manager)
	}
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

// Holder returns the holder of the lock of key, in this process or elsewhere; false: none, as far as most of its
// servers know. ctx is looked at before each question, which takes one timeout at most.
func (s *Store) Holder(ctx context.Context, key sessionlock.Key) (sessionlock.RemoteHolder, bool, error) {
	members := s.membersOf(key)
	var failed error
	answers := 0
	votes := make(map[string]int)
	for _, m := range members {
		if ctx.Err() != nil {
			return sessionlock.RemoteHolder{}, false, context.Cause(ctx)
		}
		items, err := m.Read(kv.LaneRead, s.lockName(key))
		if err != nil {
			failed = err
			continue
		}
		answers++
		if it := items[0]; it != nil {
			votes[string(it.Value)]++
		}
	}
	if answers < majority(len(members)) {
		return sessionlock.RemoteHolder{}, false, storeError(failed)
	}
	for value, n := range votes {
		if h, ok := parseHeld([]byte(value)); ok && n >= majority(len(members)) {
			return h, true, nil
		}
	}
	return sessionlock.RemoteHolder{}, false, nil
}
