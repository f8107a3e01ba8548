package memcachelock_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// One gate holds, the server is flushed, and another gate asks for the first time, before any watcher has looked: it
// is its own question that tells it.
func TestAFlushIsSeenByWhoTakesALock(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	o := f.options()
	o.Timeout, o.Lease = deadline, 2*deadline // neither comes to pass
	events := new(journal)
	o.OnEvent = events.add
	holder, holders := f.watched(t, o)
	o.OnEvent = nil
	other, others := f.watched(t, o)
	here, there := sessionlock.NewManager(holder), sessionlock.NewManager(other)
	key := newKey(t)
	l := lockSoon(t, here, key)
	lockSoon(t, there, newKey(t)).Release() // its connections are there: a new one would look for the epoch
	holders.hold(t)
	others.hold(t)
	c := talkTo(t, f.servers[0])
	c.want(c.ask("flush_all"), "OK")
	for _, key := range []sessionlock.Key{key, newKey(t)} {
		got, err := there.Acquire(context.Background(), key, nil, sessionlock.Policy{})
		if err == nil {
			got.Release()
		}
		if !errors.Is(err, sessionlock.ErrMaxWait) {
			t.Errorf("got error %v of a server that was flushed, want the lock held", err)
		}
	}
	if got := other.Stats().Servers[0]; got.Forgot != 1 {
		t.Errorf("got %+v, want the flush seen once", got)
	}
	holders.release()
	others.release()
	events.want(t, memcachelock.ServerForgot)
	events.wantRestored(t)
	if err := l.Err(); err != nil {
		t.Errorf("got error %v of the holder, want the lock held", err)
	}
	l.Release()
	lockSoon(t, there, key).Release()
}

// watched makes a store whose watcher can be held up.
func (f *fleet) watched(t *testing.T, o memcachelock.Options) (*memcachelock.Store, *watcher) {
	t.Helper()
	w := &watcher{held: make(chan struct{}), released: make(chan struct{})}
	o.Dial = w.dial
	s := f.store(t, o)
	t.Cleanup(w.release) // before the store is closed
	eventually(t, "the server is watched", func() bool { return s.Stats().Servers[0].Up })
	return s, w
}

// watcher is the connection over which a store watches its server: the first one that it makes.
type watcher struct {
	first sync.Once
	net.Conn

	mu       sync.Mutex
	holding  bool
	once     sync.Once
	held     chan struct{} // closed when a question of the watcher is held up
	released chan struct{}
}

func (w *watcher) dial(ctx context.Context, network, address string) (nc net.Conn, err error) {
	nc, err = new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		w.first.Do(func() { w.Conn, nc = nc, w })
	}
	return nc, err
}

// hold comes back when the watcher waits, with no question under way.
func (w *watcher) hold(t *testing.T) {
	w.mu.Lock()
	w.holding = true
	w.mu.Unlock()
	eventually(t, "the watcher is held up", func() bool {
		select {
		case <-w.held:
			return true
		default:
			return false
		}
	})
}

func (w *watcher) release() { w.once.Do(func() { close(w.released) }) }

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	holding := w.holding && strings.HasPrefix(string(b), "gets "+memcachelock.DefaultPrefix+"epoch")
	w.holding = w.holding && !holding
	w.mu.Unlock()
	if holding {
		close(w.held)
		<-w.released
	}
	return w.Conn.Write(b)
}
