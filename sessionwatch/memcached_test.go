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

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// fakeMemcached knows which keys there are, and no more of memcached.
type fakeMemcached struct {
	listener net.Listener

	mu    sync.Mutex
	keys  map[string]bool
	conns []net.Conn
	asked []time.Time   // when commands came
	hung  chan struct{} // answers wait until it is closed; nil: they do not
	mute  bool          // it hangs up instead of answering
	mad   bool          // it says the key, and nothing that it should
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
		command, keys, _ := strings.Cut(lines.Text(), " ")
		f.mu.Lock()
		f.asked = append(f.asked, time.Now())
		mute, mad, hung := f.mute, f.mad, f.hung
		f.mu.Unlock()
		if hung != nil {
			<-hung
		}
		if mute || command != "gets" {
			return
		}
		if mad {
			fmt.Fprintf(nc, "WHAT %s\r\n", keys)
			continue
		}
		for key := range strings.FieldsSeq(keys) {
			if f.has(key) {
				fmt.Fprintf(nc, "VALUE %s 0 1 7\r\n1\r\n", key)
			}
		}
		fmt.Fprint(nc, "END\r\n")
	}
}

func (f *fakeMemcached) has(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys[key]
}

// hang has answers wait, until the function that it returns is called.
func (f *fakeMemcached) hang() (goOn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hung := make(chan struct{})
	f.hung = hung
	return sync.OnceFunc(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hung = nil
		close(hung)
	})
}

// set reports whether a key is there.
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
		o.Servers = append(o.Servers, netaddr.Addr{Network: "unix", Address: f.listener.Addr().String()})
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

// wanted is a watch that a request waits for.
func wanted(m Watcher, id string) *watched {
	w := watch(m, id)
	w.Prioritize()
	return w
}

// believe has m see a lock key of that session, so that it believes what it does not see.
func believe(t *testing.T, m *Memcached, f *fakeMemcached, id string) {
	t.Helper()
	key := MemcachedPrefix + "lock." + id
	f.set(key, true)
	w := wanted(m, id)
	defer w.Stop()
	w.await(t, Open)
	f.set(key, false)
	w.await(t, Closed)
}

func TestALockKeyIsAskedForWhileARequestWaits(t *testing.T) {
	one, two := newFakeMemcached(t), newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, one, two)
	believe(t, m, one, "other")
	asked := m.Asked()
	w := watch(m, "other")
	time.Sleep(10 * minAskPause)
	w.want(t, Unknown)
	if got := m.Asked(); got != asked {
		t.Errorf("polled %d times though no request waits", got-asked)
	}
	w.Stop()
	w = wanted(m, "Abc")
	w.await(t, Unseen)
	one.set("memc.sess.key.lock.abc", true) // another session
	two.set("memc.sess.key.lock.Abc", true)
	w.await(t, Open)
	two.set("memc.sess.key.lock.Abc", false)
	w.await(t, Closed)
	w.want(t, Closed)
	asked = m.Asked()
	w.Prioritize()
	time.Sleep(10 * minAskPause)
	w.Stop()
	w.Stop()
	if got := m.Asked(); got != asked {
		t.Error("polled a session that is closed")
	}
}

// TestAKeyThatIsNotThereProvesNothing, unless lock keys were seen, and the session's own lock or data with them.
func TestAKeyThatIsNotThereProvesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		locks string // the session whose lock was seen before; empty: none was
		data  bool
		want  State
	}{
		"nothing was seen":                  {"", false, Unseen},
		"data, and no locks: no locking":    {"", true, Unseen},
		"locks of others: another handler":  {"other", false, Unseen},
		"locks of others, and its own data": {"other", true, Shut},
		"its own lock":                      {"a", false, Shut},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, start := range map[string]func(Watcher, string) *watched{"of a request": watch, "of a new id": watchOpen} {
				f := newFakeMemcached(t)
				m := watcherOf(t, MemcachedOptions{}, f)
				if c.locks != "" {
					believe(t, m, f, c.locks)
				}
				f.set("memc.sess.key.a", c.data)
				want := c.want
				if kind == "of a new id" {
					if want = Presumed; c.want == Shut {
						want = Closed
					}
				}
				w := start(m, "a")
				defer w.Stop()
				w.Prioritize()
				w.await(t, want)
				for before := m.Asked(); want != Closed && m.Asked() < before+5; {
					time.Sleep(minAskPause)
				}
				if got := w.State(); got != want {
					t.Errorf("%s: state after more answers: got %d, want %d", kind, got, want)
				}
			}
		})
	}
}

func TestLocksAreNotBelievedForever(t *testing.T) {
	f := newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, f)
	believe(t, m, f, "a")
	m.mu.Lock()
	m.lastLock = m.lastLock.Add(-believeLocks)
	m.mu.Unlock()
	w := wanted(m, "a")
	defer w.Stop()
	w.await(t, Unseen)
}

// Of a few sessions that are not known yet it is found out where they are kept, although no request waits.
func TestAFewSessionsAreLookedForUntilTheyAreKnown(t *testing.T) {
	f := newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, f)
	first := watch(m, "a")
	first.await(t, Unseen)
	var more []*watched
	for i := range 2 * maxSamples {
		more = append(more, watch(m, fmt.Sprint(i)))
	}
	m.mu.Lock()
	if got := len(m.watches); got != maxSamples {
		t.Errorf("%d sessions are polled, want %d", got, maxSamples)
	}
	m.mu.Unlock()
	for _, w := range more {
		w.Stop()
	}
	f.set("memc.sess.key.lock.a", true)
	first.await(t, Open)
	f.set("memc.sess.key.lock.a", false)
	first.await(t, Closed)
	f.set("memc.sess.key.b", true)
	w := watch(m, "b")
	defer w.Stop()
	w.await(t, Shut)
	m.mu.Lock()
	if len(m.watches) != 0 || m.samples != 0 {
		t.Errorf("%d sessions are still polled, %d of them unwanted", len(m.watches), m.samples)
	}
	m.mu.Unlock()
	for _, id := range []string{"a", "b"} {
		known := watch(m, id)
		defer known.Stop()
		time.Sleep(10 * minAskPause)
		known.want(t, Unknown)
	}
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
	reported := new(reports)
	f := newFakeMemcached(t)
	f.set("app.lock.a", true)
	m := watcherOf(t, MemcachedOptions{Prefix: "app.", Report: func(err error) { reported.add("it", err) }}, f)
	w := wanted(m, "a")
	w.await(t, Open)
	f.setMute(true)
	muted := time.Now()
	w.await(t, Unknown)
	for w.losses.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(muted); took < losePatience {
		t.Errorf("the watch was lost after %v, want %v at least", took, losePatience)
	}
	asked := m.Asked()
	for m.Asked() < asked+3 {
		time.Sleep(time.Millisecond)
	}
	if got := w.losses.Load(); got != 1 {
		t.Errorf("the watch has called %d times that it is lost, want once", got)
	}
	f.setMute(false)
	w.await(t, Open)
	reported.want(t, "EOF", "it works")
	f.set("app.lock.a", false)
	w.await(t, Closed)
}

// A server that is busy, or restarts, is away for a moment: the watch goes on afterwards, and no loss is reported.
// What was asked for meanwhile is answered then.
func TestAMemcachedThatIsAwayForAMomentLosesNothing(t *testing.T) {
	for name, away := range map[string]func(f *fakeMemcached) (back func()){
		"it does not respond": (*fakeMemcached).hang,
		"it hangs up": func(f *fakeMemcached) func() {
			f.setMute(true)
			return func() { f.setMute(false) }
		},
	} {
		for after, end := range map[string]struct {
			open bool
			want State
		}{"open": {true, Open}, "closed": {false, Closed}} {
			t.Run(name+", "+after, func(t *testing.T) {
				t.Parallel()
				f := newFakeMemcached(t)
				f.set("app.lock.a", true)
				m := watcherOf(t, MemcachedOptions{Prefix: "app."}, f)
				w := wanted(m, "a")
				w.await(t, Open)
				back := away(f)
				w.await(t, Unknown)
				w.Prioritize() // as at the end of the response
				asked := m.Asked()
				for m.Asked() < asked+2 {
					time.Sleep(time.Millisecond)
				}
				f.set("app.lock.a", end.open)
				back()
				w.await(t, end.want)
				if got := w.losses.Load(); got != 0 {
					t.Errorf("the watch has called %d times that it is lost", got)
				}
			})
		}
	}
}

// TestAnAnswerFollowsEachWant: without a call, the caller knows that the session is open.
func TestAnAnswerFollowsEachWant(t *testing.T) {
	f := newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, f)
	answers := make(chan State, 10)
	w := m.Watch([]byte("a"), func(s State) { answers <- s })
	defer w.Stop()
	want := func(states ...State) {
		t.Helper()
		w.Prioritize()
		for _, want := range states {
			select {
			case got := <-answers:
				if got != want {
					t.Errorf("answer: got %d, want %d", got, want)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no answer")
			}
		}
	}
	want(Unseen)
	want(Unseen)
	f.setMute(true)
	want(Unknown)
	want(Unknown)
	f.setMute(false)
	want(Unseen)
	f.set("memc.sess.key.lock.a", true)
	w.Prioritize()
	for w.State() != Open {
		time.Sleep(time.Millisecond)
	}
	f.set("memc.sess.key.lock.a", false)
	want(Closed)
	time.Sleep(10 * minAskPause)
	if len(answers) > 0 {
		t.Errorf("got %d answers more", len(answers))
	}
}

// A server that hangs delays no caller: what is known is said, and else that nothing is.
func TestNoCallerWaitsForAServer(t *testing.T) {
	f := newFakeMemcached(t)
	goOn := f.hang()
	defer goOn()
	m := watcherOf(t, MemcachedOptions{}, f)
	w := wanted(m, "a")
	for f.commands() == 0 {
		time.Sleep(time.Millisecond)
	}
	w.want(t, Unproven)
	w.Prioritize()
	w.Stop() // all of these while the answer is out
}

func (f *fakeMemcached) commands() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

func TestStoppedWatchesAreNotAskedFor(t *testing.T) {
	f := newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, f)
	w, sample := wanted(m, "a"), watch(m, "sample")
	w.Prioritize()
	w.Stop()
	w.Prioritize()
	sample.Prioritize()
	sample.Stop()
	m.mu.Lock()
	if len(m.watches) != 0 || m.samples != 0 {
		t.Errorf("%d watches are still polled, %d of them unwanted", len(m.watches), m.samples)
	}
	m.mu.Unlock()
	f.set("memc.sess.key.lock.b", true)
	open := wanted(m, "b")
	open.await(t, Open)
	m.poller.Close()
	open.want(t, Unknown)
	if got := open.losses.Load(); got != 1 {
		t.Errorf("the watch has called %d times that it is lost, want once", got)
	}
	open.Prioritize()
	watch(m, "c").want(t, Unproven)
}

// TestOneConnectionAsksForAll: however many sessions are wanted at once, and though the server stalls.
func TestOneConnectionAsksForAll(t *testing.T) {
	const n = 3000
	one, two := newFakeMemcached(t), newFakeMemcached(t)
	servers := []*fakeMemcached{one, two}
	m := watcherOf(t, MemcachedOptions{}, one, two)
	begun := time.Now()
	goOn := one.hang()
	var all []*watched
	for i := range n {
		id := fmt.Sprintf("session%d", i)
		servers[i%2].set(MemcachedPrefix+"lock."+id, true)
		all = append(all, wanted(m, id))
	}
	time.AfterFunc(240*time.Millisecond, goOn)
	for _, w := range all {
		w.await(t, Open)
	}
	for i := range n {
		servers[i%2].set(fmt.Sprintf("%slock.session%d", MemcachedPrefix, i), false)
	}
	for _, w := range all {
		w.await(t, Closed)
		w.Stop()
	}
	took := time.Since(begun)
	commands := 0
	for _, f := range servers {
		f.mu.Lock()
		// A second one replaces the first if the stall was longer than the timeout, on a machine that is full.
		if got := len(f.conns); got > 1+int(took/askTimeout) {
			t.Errorf("%d connections in %v, want one", got, took)
		}
		commands += len(f.asked)
		f.mu.Unlock()
	}
	if most := int(took.Seconds()*maxAskRate) + len(servers); commands > most {
		t.Errorf("%d commands in %v, want %d at most", commands, took, most)
	}
	t.Logf("%d watches: %d commands in %v", n, commands, took.Round(time.Millisecond))
}

func TestASessionIsAskedForLessOftenTheLongerItLasts(t *testing.T) {
	now := time.Now()
	for waited, want := range map[time.Duration]time.Duration{
		0:                     minAskPause,
		40 * time.Millisecond: 10 * time.Millisecond,
		time.Minute:           maxAskPause,
	} {
		w := keyWatch{since: now.Add(-waited)}
		if got := w.pause(now); got != want {
			t.Errorf("after %v: got a pause of %v, want %v", waited, got, want)
		}
	}
}

// An id that memcached would refuse as a key does not keep others from being seen.
func TestAnIDThatIsNoKeyIsNotAskedFor(t *testing.T) {
	f := newFakeMemcached(t)
	m := watcherOf(t, MemcachedOptions{}, f)
	for _, id := range []string{"a b", "a\x01", "a\x7f", strings.Repeat("a", 300)} {
		wanted(m, id).want(t, Unknown)
	}
	believe(t, m, f, "good")
}

func TestAnErrorHoldsNoSessionID(t *testing.T) {
	f := newFakeMemcached(t)
	f.mad = true
	reports := make(chan error, 10)
	m := watcherOf(t, MemcachedOptions{Report: func(err error) { reports <- err }}, f)
	w := watch(m, "id-of-a-visitor")
	defer w.Stop()
	w.Prioritize()
	select {
	case err := <-reports:
		if err == nil || strings.Contains(err.Error(), "visitor") {
			t.Errorf("got error %v, want one without the session id", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nonsense was not reported")
	}
}
