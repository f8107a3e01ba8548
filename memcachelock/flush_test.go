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

// A gate has noticed, by a request of its own, that the epoch is missing. The leases that it adds before there is a new
// epoch may be lost again, unnoticed. So the first new epoch counts as another loss.
func TestALossLastsUntilThereIsAnEpochAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		between func(t *testing.T, flush func(), holder, other *memcachelock.Store)
	}{
		"the holder's leases are lost twice": {func(t *testing.T, flush func(), holder, _ *memcachelock.Store) {
			notice(t, holder)
			eventually(t, "the lease is added again", func() bool { return holder.Stats().Servers[0].Regained > 0 })
			flush()
		}},
		"the other gate's grace is over before the holder knows": {
			func(t *testing.T, _ func(), _, other *memcachelock.Store) {
				notice(t, other)
				eventually(t, "the grace is over", func() bool { return !other.Stats().Servers[0].Grace })
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 1)
			o := f.options()
			o.Timeout, o.Lease = deadline, 4*deadline // neither comes to pass
			holder, holders := f.watched(t, o)
			other, others := f.watched(t, o)
			key := newKey(t)
			there := sessionlock.NewManager(other)
			for _, s := range []*memcachelock.Store{holder, other} {
				connectAll(t, s)
			}
			l := lockSoon(t, sessionlock.NewManager(holder), key)
			holders.hold(t)
			others.hold(t)
			talk := talkTo(t, f.servers[0])
			flush := func() { talk.want(talk.ask("flush_all"), "OK") }
			flush()
			c.between(t, flush, holder, other)
			const epoch = "2000 of the test"
			talk.want(talk.ask("add %sepoch 0 0 %d\r\n%s", memcachelock.DefaultPrefix, len(epoch), epoch), "STORED")
			if got, err := there.Acquire(context.Background(), key, nil, sessionlock.Policy{}); err == nil {
				t.Error("got the lock of a holder that has not lost it")
				got.Release()
			}
			holders.release()
			others.release()
			eventually(t, "the lease is there again", func() bool {
				_, held, err := other.Holder(context.Background(), key)
				return held && err == nil
			})
			if err := l.Err(); err != nil {
				t.Errorf("got error %v of the holder, want the lock held", err)
			}
			l.Release()
			lockSoon(t, there, key).Release()
		})
	}
}

// connectAll has a store make more connections than a test needs: a new one would begin an epoch.
func connectAll(t *testing.T, s *memcachelock.Store) {
	t.Helper()
	m := sessionlock.NewManager(s)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			l := lockSoon(t, m, newKey(t))
			_, err := sessionlock.NewManager(s).Acquire(context.Background(), l.Key(), nil, sessionlock.Policy{})
			if !errors.Is(err, sessionlock.ErrMaxWait) {
				t.Errorf("got error %v, want the lock held", err)
			}
			l.Release()
		})
	}
	all.Wait()
	eventually(t, "all is released", func() bool { return s.Stats().Leases == 0 })
}

// notice makes a store notice, by a request for a lock, that its server has no epoch.
func notice(t *testing.T, s *memcachelock.Store) {
	t.Helper()
	forgot := s.Stats().Servers[0].Forgot
	_, err := sessionlock.NewManager(s).Acquire(context.Background(), newKey(t), nil, sessionlock.Policy{})
	if !errors.Is(err, sessionlock.ErrMaxWait) || s.Stats().Servers[0].Forgot != forgot+1 {
		t.Fatalf("got error %v, want the loss noticed", err)
	}
}
