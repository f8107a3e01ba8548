package sessionwatch

import (
	"bufio"
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeMemcached knows which keys there are, and no more of memcached.
type fakeMemcached struct {
	listener net.Listener

	mu    sync.Mutex
	keys  map[string]bool
	conns []net.Conn
	mute  bool // it hangs up instead of answering
	mad   bool // it says the key, and nothing that it should
}

func newFakeMemcached(t *testing.T) *fakeMemcached {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeMemcached{listener: l, keys: map[string]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, nc)
			f.mu.Unlock()
			serving.Go(func() { f.serve(nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, nc := range f.conns {
			nc.Close()
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

func (f *fakeMemcached) serve(nc net.Conn) {
	defer nc.Close()
	lines := bufio.NewScanner(nc)
	for lines.Scan() {
		command, key, _ := strings.Cut(lines.Text(), " ")
		f.mu.Lock()
		there, mute, mad := f.keys[key], f.mute, f.mad
		f.mu.Unlock()
		switch {
		case mute || command != "gets" && command != "get":
			return
		case mad:
			fmt.Fprintf(nc, "WHAT %s\r\n", key)
		case there:
			fmt.Fprintf(nc, "VALUE %s 0 1 7\r\n1\r\nEND\r\n", key)
		default:
			fmt.Fprint(nc, "END\r\n")
		}
	}
}

// set says whether a key is there.
func (f *fakeMemcached) set(key string, there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[key] = there
}

func (f *fakeMemcached) setMute(mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = mute
}

func watcherOf(t *testing.T, o MemcachedOptions, servers ...*fakeMemcached) *Memcached {
	t.Helper()
	o.Prefix = cmp.Or(o.Prefix, MemcachedPrefix)
	for _, f := range servers {
		o.Network, o.Addresses = append(o.Network, "unix"), append(o.Addresses, f.listener.Addr().String())
	}
	m := NewMemcached(o)
	t.Cleanup(m.Close)
	return m
}

// await waits until a watch is in that state.
func (w *watched) await(t *testing.T, want State) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); w.State() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("state: got %d, want %d", w.State(), want)
		}
	}
}

func TestALockKeyIsAskedForWhileSomebodyWaits(t *testing.T) {
	one, two := newFakeMemcached(t), newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, one, two)
	w := watch(m, "Abc")
	w.want(t, Unknown)
	if got := m.Asked(); got != 0 {
		t.Errorf("asked %d times though nobody waits", got)
	}
	w.Want()
	w.await(t, Unseen)
	one.set("memc.sess.key.lock.abc", true) // another session
	two.set("memc.sess.key.lock.Abc", true)
	w.await(t, Open)
	two.set("memc.sess.key.lock.Abc", false)
	w.await(t, Closed)
	w.want(t, Closed)
	asked := m.Asked()
	w.State()
	w.Stop()
	w.Stop()
	if got := m.Asked(); got != asked {
		t.Error("asked for a session that is closed")
	}
}

func TestAPresumedLockKeyThatIsNotThereIsGone(t *testing.T) {
	m := watcherOf(t, MemcachedOptions{Prefix: "app."}, newFakeMemcached(t))
	w := new(watched)
	w.Watch = m.WatchOpen([]byte("new"), func() { w.calls.Add(1) })
	w.Want()
	w.await(t, Closed)
}

func TestDestroyedSessionHasNoKey(t *testing.T) {
	one, two := newFakeMemcached(t), newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{Prefix: MemcachedPrefix}, one, two)
	w := watch(m, "id")
	if !w.Destroyed() {
		t.Error("a session that is nowhere is taken to be there")
	}
	two.set(MemcachedPrefix+"id", true)
	if w.Destroyed() {
		t.Error("a session on the second server is taken for destroyed")
	}
	one.setMute(true)
	two.set(MemcachedPrefix+"id", false)
	if w.Destroyed() {
		t.Error("a server that does not answer is taken for an answer")
	}
}

func TestAMemcachedThatDoesNotAnswerSaysNothing(t *testing.T) {
	told := new(reports)
	f := newFakeMemcached(t)
	f.set("app.lock.a", true)
	m := watcherOf(t, MemcachedOptions{Prefix: "app.", Report: func(err error) { told.add("it", err) }}, f)
	w := watch(m, "a")
	w.Want()
	w.await(t, Open)
	f.setMute(true)
	w.await(t, Unknown)
	w.await(t, Unknown)
	f.setMute(false)
	w.await(t, Open)
	told.want(t, "EOF", "it works")
	f.set("app.lock.a", false)
	w.await(t, Closed)
}

func TestStoppedWatchesAskNoMore(t *testing.T) {
	m := watcherOf(t, MemcachedOptions{}, newFakeMemcached(t))
	w := watch(m, "a")
	w.Want()
	w.Want()
	w.Stop()
	w.Want()
	m.asking.Wait()
	if got := m.wanted.Load(); got != 0 {
		t.Errorf("%d watches ask still", got)
	}
	open := watch(m, "b")
	open.Want()
	m.Close() // ends the asking of those that are there
	open.Want()
}

func TestQuestionsAreBounded(t *testing.T) {
	m := watcherOf(t, MemcachedOptions{}, newFakeMemcached(t), newFakeMemcached(t))
	for _, c := range []struct {
		wanted       int64
		waited, want time.Duration
	}{
		{1, 0, minAskPause},
		{1, 40 * time.Millisecond, 10 * time.Millisecond},
		{1, time.Minute, maxAskPause},
		{1000, 0, time.Second},
		{1000, time.Minute, time.Second},
	} {
		m.wanted.Store(c.wanted)
		if got := m.pause(c.waited); got != c.want {
			t.Errorf("%d wait, one of them for %v: got a pause of %v, want %v", c.wanted, c.waited, got, c.want)
		}
	}
	m.wanted.Store(0)
}

func TestAnErrorHoldsNoSessionID(t *testing.T) {
	f := newFakeMemcached(t)
	f.mad = true
	reports := make(chan error, 10)
	m := watcherOf(t, MemcachedOptions{Report: func(err error) { reports <- err }}, f)
	w := watch(m, "id-of-a-visitor")
	defer w.Stop()
	w.Want()
	select {
	case err := <-reports:
		if err == nil || strings.Contains(err.Error(), "visitor") {
			t.Errorf("got error %v, want one without the session id", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nonsense was not reported")
	}
}
