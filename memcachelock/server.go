package memcachelock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// server is one memcached as the store sees it. Locks are taken by its taker; all other questions go through a
// gomemcache client of its own. At most maxQuestions are asked at once, and while the server is known to be down they
// fail without being asked.
//
// gomemcache retries nothing, and takes no context: a question ends by its timeout.
type server struct {
	store  *Store
	addr   Addr
	client *memcache.Client
	slots  chan struct{} // full: as many of the client's questions are under way as may be
	taker  *taker
	counts counts

	mu       sync.Mutex
	tickets  map[sessionlock.Key]*ticket
	doubts   []doubt
	down     error     // nil: up, as far as we know
	since    time.Time // when that began; zero: never seen
	returned bool      // it was down before
	relapses int       // in a row
	rest     time.Time // not up before
	err      error     // the last failure
	met      bool      // epoch was once known
	epoch    string    // "": unknown
	grace    time.Time // no new leases before
	forgot   bool      // our leases have yet to be added again
}

// maxQuestions bounds the connections to a server, of which memcached serves 1024 by default. All of them may idle:
// gomemcache closes what it is not told to keep.
const maxQuestions = 32

// A server that times out soon after it was back, time and again, rests for a while: it may answer its watcher and
// nobody else.
const (
	soon = 5 * time.Second
	rest = 2 * time.Second
)

func newServer(s *Store, a Addr) *server {
	v := &server{
		store:   s,
		addr:    a,
		slots:   make(chan struct{}, maxQuestions-maxTakes),
		tickets: make(map[sessionlock.Key]*ticket),
	}
	v.taker = &taker{server: v, slots: make(chan struct{}, maxTakes)}
	v.client = memcache.NewFromSelector(selector{v})
	v.client.Timeout = s.options.Timeout
	v.client.MaxIdleConns = cap(v.slots)
	v.client.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return v.dial(ctx) }
	return v
}

// selector has one server to choose from.
type selector struct{ server *server }

func (s selector) PickServer(string) (net.Addr, error)      { return s, nil }
func (s selector) Each(question func(net.Addr) error) error { return question(s) }
func (s selector) Network() string                          { return s.server.addr.Network }
func (s selector) String() string                           { return s.server.addr.Address }

// get reads items, with their CAS ids. Those that are not there are left out.
func (v *server) get(names ...string) (items map[string]*memcache.Item, err error) {
	err = v.ask(v.slots, true, func() error {
		items, err = v.client.GetMulti(names)
		return err
	})
	return items, err
}

// getAndTouch reads an item, without its CAS id, and makes it live for the given seconds from now.
func (v *server) getAndTouch(name string, seconds int32) (item *memcache.Item, err error) {
	err = v.ask(v.slots, true, func() error {
		item, err = v.client.GetAndTouch(name, seconds)
		return err
	})
	return item, err
}

// add returns memcache.ErrNotStored if there is an item already. Any other error may be of a lost answer: see
// unasked.
func (v *server) add(name string, value []byte, seconds int32) error {
	return v.ask(v.slots, false, func() error {
		return v.client.Add(&memcache.Item{Key: name, Value: value, Expiration: seconds})
	})
}

// compareAndSwap writes what is now in item, if nobody has written it since item was read. Seconds −1 delete it.
func (v *server) compareAndSwap(name string, value []byte, seconds int32, casID uint64) error {
	return v.ask(v.slots, false, func() error {
		return v.client.CompareAndSwap(&memcache.Item{Key: name, Value: value, Expiration: seconds, CasID: casID})
	})
}

const deleteNow = -1

// Errors of questions that were not asked, beside those of a dial.
var (
	errBusy   = errors.New("too many questions are under way")
	errForgot = errors.New("the server may have lost its leases")
)

// downError is that of a question that was not asked because of an earlier failure.
type downError struct{ cause error }

func (e *downError) Error() string { return "the server is down since: " + e.cause.Error() }
func (e *downError) Unwrap() error { return e.cause }

// dialError is that of a connection that never came to be.
type dialError struct{ cause error }

func (e *dialError) Error() string { return e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }

// unasked says that the server has not got the question that ended with err.
func unasked(err error) bool {
	var dial *dialError
	var down *downError
	return errors.As(err, &dial) || errors.As(err, &down) || errors.Is(err, errBusy)
}

// ask asks question when there is a slot, and once more if it may be asked twice and the connection turns out to be an
// old one.
func (v *server) ask(slots chan struct{}, twice bool, question func() error) error {
	if err := v.enter(slots); err != nil {
		v.counts.unasked.Add(1)
		return v.named(err)
	}
	defer func() { <-slots }()
	begun := time.Now()
	v.counts.questions.Add(1)
	err := question()
	if broken(err) || errors.Is(err, errForgot) {
		v.closeIdle() // the others that idle are old, too
		if twice {
			v.counts.questions.Add(1)
			err = question()
			if broken(err) {
				v.fail(begun, err)
			}
		}
	}
	if answered(err) {
		return err
	}
	v.counts.failures.Add(1)
	if timedOut(err) {
		v.counts.timeouts.Add(1)
	}
	if unreachable(err) {
		v.fail(begun, err)
	}
	return v.named(err)
}

// enter takes a slot, if the server is up.
func (v *server) enter(slots chan struct{}) error {
	if err := v.downErr(); err != nil {
		return err
	}
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	timeout := time.NewTimer(v.store.options.Timeout)
	defer timeout.Stop()
	select {
	case slots <- struct{}{}:
	case <-timeout.C:
		return errBusy
	}
	if err := v.downErr(); err != nil {
		<-slots
		return err
	}
	return nil
}

// closeIdle closes the connections that are not in use.
func (v *server) closeIdle() {
	v.taker.close()
	_ = v.client.Close()
}

func (v *server) named(err error) error { return fmt.Errorf("memcached %s: %w", v.addr, err) }

// answered says whether err is what the server said.
func answered(err error) bool {
	return err == nil || errors.Is(err, memcache.ErrCacheMiss) || errors.Is(err, memcache.ErrNotStored) ||
		errors.Is(err, memcache.ErrCASConflict)
}

// broken says whether the connection ended, as old ones do. The question may have been heard or not.
func broken(err error) bool {
	var dial *dialError
	return !errors.As(err, &dial) && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// unreachable says whether the next question would fare no better, and may cost a timeout.
func unreachable(err error) bool {
	var dial *dialError
	return timedOut(err) || errors.As(err, &dial) && !errors.Is(err, errForgot)
}

// storeError is err as sessionlock knows it.
func storeError(err error) error { return fmt.Errorf("%w: %w", sessionlock.ErrStore, err) }

// downErr is nil while the server is up.
func (v *server) downErr() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down == nil {
		return nil
	}
	return &downError{v.down}
}

func (v *server) isUp() bool { return v.downErr() == nil }

// fail takes the server for down until its watcher has an answer of it. The question that failed was begun then: if
// the server has been back since, it says nothing.
func (v *server) fail(begun time.Time, err error) {
	v.mu.Lock()
	now := time.Now()
	v.err = err
	first := v.down == nil && !begun.Before(v.since)
	if first {
		if !v.returned || now.Sub(v.since) >= soon || !timedOut(err) {
			v.relapses = 0
		} else if v.relapses++; v.relapses > 1 {
			v.rest = now.Add(rest)
		}
		v.down, v.since = err, now
	}
	v.mu.Unlock()
	if first {
		v.closeIdle()
		v.store.tell(Event{Kind: ServerDown, Server: v.addr, Err: err})
	}
}

// recover takes the server for up, unless it has to rest: it has answered a question that was asked then. It says
// whether the server is up. Of the questions that began while it was down none counts any more; but if it was never
// met before, those that began while this answer was on its way do.
func (v *server) recover(asked time.Time) bool {
	v.mu.Lock()
	was := v.down
	if was != nil && time.Now().Before(v.rest) {
		v.mu.Unlock()
		return false
	}
	v.down, v.returned = nil, v.returned || was != nil
	if was != nil {
		v.since = time.Now()
	} else if v.since.IsZero() {
		v.since = asked
	}
	v.mu.Unlock()
	if was != nil {
		v.store.tell(Event{Kind: ServerUp, Server: v.addr})
	}
	return true
}

// ticket is a place in the order in which things are done to one lock on one server: what a release has begun is
// over before the acquire that follows.
type ticket struct {
	server *server
	key    sessionlock.Key
	before *ticket // nil: nothing is under way
	done   chan struct{}
	given  bool // the lock was given to another gate; known when it is done
}

// ticket takes the next place. It has to be left.
func (v *server) ticket(key sessionlock.Key) *ticket {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := &ticket{server: v, key: key, done: make(chan struct{})}
	t.before = v.tickets[key]
	v.tickets[key] = t
	return t
}

func (t *ticket) wait() {
	if t.before != nil {
		<-t.before.done
	}
}

// isGiven says, after the wait, whether we have just given the lock to another gate: who asks for it now need not ask.
func (t *ticket) isGiven() bool { return t.before != nil && t.before.given }

func (t *ticket) leave() {
	t.server.mu.Lock()
	defer t.server.mu.Unlock()
	if t.server.tickets[t.key] == t {
		delete(t.server.tickets, t.key)
	}
	t.before = nil // which is over, and would keep all before it in memory
	close(t.done)
}
