package sessionwatch

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// MemcachedPrefix is what php-memcached puts before its keys, unless its memcached.sess_prefix says otherwise.
const MemcachedPrefix = "memc.sess.key."

// Memcached is a Watcher of the sessions that php-memcached keeps, with memcached.sess_locking on. A session is open
// while its lock key is there. That is asked only while somebody waits: so what a watch has seen before is nothing,
// and a session that was open for a moment may not be seen at all. It is made by NewMemcached.
type Memcached struct {
	options MemcachedOptions
	servers []*memcache.Client
	wanted  atomic.Int64 // watches that ask
	asked   atomic.Uint64
	failing atomic.Bool // the last question had no answer
	life    context.Context
	end     context.CancelFunc
	asking  sync.WaitGroup
}

// MemcachedOptions say where php-memcached keeps its sessions.
type MemcachedOptions struct {
	Network, Addresses []string // of each server: unix and a path, or tcp and host:port
	Prefix             string   // memcached.sess_prefix; mostly MemcachedPrefix
	// Report is told when the servers cannot be asked, once, and with a nil error when they can again. Nil: nobody is.
	Report func(error)
}

const (
	// askTimeout bounds a question.
	askTimeout = 250 * time.Millisecond
	// A session is asked for after a quarter of the time since somebody has begun to wait, within these bounds.
	minAskPause = 2 * time.Millisecond
	maxAskPause = 25 * time.Millisecond
	// maxAskRate bounds the commands per second of all watches together.
	maxAskRate = 2000
)

// NewMemcached makes a watcher. It does not connect before it has to ask.
func NewMemcached(o MemcachedOptions) *Memcached {
	if o.Report == nil {
		o.Report = func(error) {}
	}
	m := &Memcached{options: o}
	m.life, m.end = context.WithCancel(context.Background())
	for i, address := range o.Addresses {
		c := memcache.New(address)
		c.Timeout = askTimeout
		c.MaxIdleConns = 4
		network := o.Network[i]
		c.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		m.servers = append(m.servers, c)
	}
	return m
}

// Watch watches the lock key of id.
func (m *Memcached) Watch(id []byte, closed func()) Watch { return m.watch(id, closed, Unseen) }

// WatchOpen watches the lock key of id, which should be there.
func (m *Memcached) WatchOpen(id []byte, closed func()) Watch { return m.watch(id, closed, Presumed) }

func (m *Memcached) watch(id []byte, closed func(), state State) Watch {
	name := string(cString(id))
	return &keyWatch{memcached: m, key: m.options.Prefix + "lock." + name, data: m.options.Prefix + name, closed: closed, state: state}
}

// Close ends the asking.
func (m *Memcached) Close() {
	m.end()
	m.asking.Wait()
	for _, c := range m.servers {
		_ = c.Close()
	}
}

// Asked is how many commands have been sent.
func (m *Memcached) Asked() uint64 { return m.asked.Load() }

// kept asks whether a key is there. Which server has it depends on more settings of PHP's than are worth knowing
// here, so all are asked.
func (m *Memcached) kept(key string) (bool, error) {
	for _, c := range m.servers {
		m.asked.Add(1)
		_, err := c.Get(key)
		switch {
		case err == nil:
			return true, m.note(nil)
		case !errors.Is(err, memcache.ErrCacheMiss):
			return false, m.note(withoutID(err))
		}
	}
	return false, m.note(nil)
}

// errNonsense is that of an answer that is none.
var errNonsense = errors.New("memcached does not answer as the protocol says")

// withoutID is err if it says what became of a connection. Others quote the answer, in which there may be the session's id.
func withoutID(err error) error {
	if _, is := errors.AsType[net.Error](err); is || errors.Is(err, io.EOF) || errors.Is(err, memcache.ErrMalformedKey) {
		return err
	}
	return errNonsense
}

// note tells of servers that cannot be asked, and passes err on. A key that memcached would refuse is PHP's trouble.
func (m *Memcached) note(err error) error {
	if !errors.Is(err, memcache.ErrMalformedKey) && m.life.Err() == nil && m.failing.Swap(err != nil) != (err != nil) {
		m.options.Report(err)
	}
	return err
}

// keyWatch is one request's watch over a lock key.
type keyWatch struct {
	memcached *Memcached
	key       string // of the lock
	data      string // of the session itself
	closed    func()

	mu       sync.Mutex
	state    State
	since    time.Time // when it was first wanted
	unknown  bool      // the last question had no answer
	isWanted bool
	stop     context.CancelFunc // of the asking; nil: nobody asks
	stopped  bool
}

// State asks, if somebody waits. Else nothing is known.
func (w *keyWatch) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.isWanted {
		return Unknown
	}
	w.ask()
	if w.unknown && w.state != Closed {
		return Unknown
	}
	return w.state
}

// Want asks at once, and then again and again.
func (w *keyWatch) Want() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isWanted || w.stopped || w.memcached.life.Err() != nil {
		return
	}
	w.isWanted, w.since = true, time.Now()
	ctx, cancel := context.WithCancel(w.memcached.life)
	w.stop = cancel
	w.memcached.wanted.Add(1)
	w.memcached.asking.Go(func() {
		defer w.memcached.wanted.Add(-1)
		w.poll(ctx)
	})
}

// poll asks until the session is closed, or ctx is done.
func (w *keyWatch) poll(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		w.ask()
		over, waited := w.stopped || w.state == Closed, time.Since(w.since)
		w.mu.Unlock()
		if over {
			return
		}
		timer.Reset(w.memcached.pause(waited))
	}
}

// pause is how long a watch that has been wanted for so long waits before it asks again.
func (m *Memcached) pause(waited time.Duration) time.Duration {
	own := min(max(waited/4, minAskPause), maxAskPause)
	share := time.Duration(m.wanted.Load()) * time.Duration(len(m.servers)) * time.Second / maxAskRate
	return max(own, share)
}

// ask asks once. It is called with the mutex held, which also keeps closed from being called behind Stop.
func (w *keyWatch) ask() {
	if w.stopped || w.state == Closed {
		return
	}
	locked, err := w.memcached.kept(w.key)
	w.unknown = err != nil
	switch {
	case err != nil:
	case locked:
		w.state = Open
	case w.state == Open || w.state == Presumed:
		w.state = Closed
		w.closed()
	}
}

// Destroyed asks for the session itself. PHP deletes it before it gives up its lock.
func (w *keyWatch) Destroyed() bool {
	kept, err := w.memcached.kept(w.data)
	return err == nil && !kept
}

func (w *keyWatch) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.stop != nil {
		w.stop()
	}
}
