package gate

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// sessions is a watcher of sessions that the test opens and closes itself.
type sessions struct {
	mu  sync.Mutex
	all map[string]*sessionState
}

// sessionState is the last watch over a session.
type sessionState struct {
	mu              *sync.Mutex
	state           sessionwatch.State
	changed         func(sessionwatch.State)
	wanted, stopped bool
	destroyed       bool
	asks            bool
}

// begins are the states in which the watches of some ids begin: others are of sessions that are kept in the place.
var begins = map[string]sessionwatch.State{
	"unknown": sessionwatch.Unknown,
	"made-up": sessionwatch.Unseen,
	"shut":    sessionwatch.Shut,
	"asked":   sessionwatch.Shut,
}

// beginsOpen are watches of ids that a response has set.
var beginsOpen = map[string]sessionwatch.State{
	"presumed": sessionwatch.Presumed,
	"new":      sessionwatch.Open,
	"new-shut": sessionwatch.Closed,
}

func (s *sessions) Watch(id []byte, changed func(sessionwatch.State)) sessionwatch.Watch {
	if begin, ok := begins[string(id)]; ok {
		return s.watch(id, changed, begin)
	}
	return s.watch(id, changed, sessionwatch.Unopened)
}

func (s *sessions) WatchOpen(id []byte, changed func(sessionwatch.State)) sessionwatch.Watch {
	if begin, ok := beginsOpen[string(id)]; ok {
		return s.watch(id, changed, begin)
	}
	return s.watch(id, changed, sessionwatch.Presumed)
}

func (s *sessions) Place() string { return "the test" }

func (s *sessions) Close() {}

func (s *sessions) watch(id []byte, changed func(sessionwatch.State), state sessionwatch.State) *sessionState {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &sessionState{mu: &s.mu, state: state, changed: changed, asks: string(id) == "asked"}
	s.all[string(id)] = w
	return w
}

func (w *sessionState) State() sessionwatch.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *sessionState) Asks() bool { return w.asks }

func (w *sessionState) Prioritize() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = true
}

func (w *sessionState) Destroyed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.destroyed
}

func (w *sessionState) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

// open opens a session, as PHP does.
func (s *sessions) open(id string) { s.change(id, sessionwatch.Open) }

// close closes it again.
func (s *sessions) close(id string) { s.change(id, sessionwatch.Closed) }

// lose has it seen no longer.
func (s *sessions) lose(id string) { s.change(id, sessionwatch.Unknown) }

func (s *sessions) change(id string, to sessionwatch.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.all[id]
	w.state = to
	if (to == sessionwatch.Closed || to == sessionwatch.Unknown || w.asks && to != sessionwatch.Open) && !w.stopped {
		w.changed(to) // with the mutex held, as a watcher may
	}
}

// is reports whether a session's last watch has that flag.
func (s *sessions) is(id string, flag func(*sessionState) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.all[id]
	return w != nil && flag(w)
}

func wanted(w *sessionState) bool  { return w.wanted }
func stopped(w *sessionState) bool { return w.stopped }

// newWatchedStand is a stand whose sessions the test opens and closes.
func newWatchedStand(t *testing.T, edit func(*Options)) (*stand, *sessions) {
	t.Helper()
	seen := &sessions{all: map[string]*sessionState{}}
	return newStand(t, func(o *Options) {
		o.Watcher, o.OpenWithin = seen, time.Hour
		if edit != nil {
			edit(o)
		}
	}), seen
}

func TestALockEndsWhenPHPClosesTheSession(t *testing.T) {
	s, php := newWatchedStand(t, nil)
	export := s.ask(session("one")...)
	exporting := s.php.next()
	php.open("one")
	poll := s.ask(session("one")...)
	s.waiters(1)
	await(t, "the end of the session is wanted", func() bool { return php.is("one", wanted) })
	s.php.none(t)
	php.close("one")
	polling := s.php.next() // while the export goes on
	polling.end(page + "poll")
	poll.want("poll")
	exporting.end(page + "export")
	export.want("export")
	s.unlocked()
	if got := s.Stats(); got.GivenAway != 0 {
		t.Errorf("%d turns were given away, want none", got.GivenAway)
	}
	await(t, "the watch is stopped", func() bool { return php.is("one", stopped) })
}

func TestALockThatNobodyWaitsForEndsWithItsSessionToo(t *testing.T) {
	s, php := newWatchedStand(t, nil)
	b := s.ask(session("one")...)
	script := s.php.next()
	php.open("one")
	php.close("one")
	s.unlocked()
	script.end(page + "x")
	b.want("x")
}

func TestAScriptThatDoesNotOpenItsSessionGivesItsTurnAway(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) { o.OpenWithin = time.Millisecond })
	var all []*browser
	var running []*script
	for range 4 {
		all = append(all, s.ask(session("one")...))
		running = append(running, s.php.next()) // concurrently with those before it
	}
	// Counted a moment later.
	await(t, "three turns are given away", func() bool { return s.Stats().GivenAway >= 3 })
	php.open("one") // the last one does, late
	last := s.ask(session("one")...)
	s.waiters(1)
	time.Sleep(20 * time.Millisecond) // more than open_within
	s.php.none(t)
	if got := s.Stats(); got.GivenAway != 3 {
		t.Errorf("%d turns were given away, want 3: the last script has opened its session", got.GivenAway)
	}
	for i, script := range running {
		script.end(page + "x")
		all[i].want("x")
		if i < 3 {
			s.php.none(t) // the locks of these were gone already
		}
	}
	s.waiters(1) // the session is open still
	php.close("one")
	s.php.next().end(page + "last")
	last.want("last")
	s.unlocked()
}

func TestAScriptThatIsNotWaitedForKeepsItsTurn(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) { o.OpenWithin = time.Millisecond })
	b := s.ask(session("one")...)
	script := s.php.next()
	time.Sleep(20 * time.Millisecond)
	if held := s.locks.Snapshot(); len(held) != 1 || !held[0].Held {
		t.Errorf("got %+v, want the lock held: no other request has wanted it", held)
	}
	php.open("one")
	next := s.ask(session("one")...)
	s.waiters(1)
	time.Sleep(20 * time.Millisecond)
	s.php.none(t)
	script.end(page + "x")
	b.want("x")
	php.close("one")
	s.php.next().end(page + "y")
	next.want("y")
}

// A request that waits for a connection has not had the time to open its session.
func TestOpenWithinBeginsWithTheConnection(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) {
		o.OpenWithin = time.Millisecond
		o.Upstream.MaxConnections = 1
	})
	other := s.ask()
	busy := s.php.next()
	first := s.ask(session("one")...)
	await(t, "the first has the lock", func() bool { return php.is("one", func(*sessionState) bool { return true }) })
	second := s.ask(session("one")...)
	await(t, "the end of the session is wanted", func() bool { return php.is("one", wanted) })
	time.Sleep(20 * time.Millisecond)
	s.waiters(1)
	busy.end(page + "other")
	other.want("other")
	s.php.next().end(page + "first")
	first.want("first")
	s.php.next().end(page + "second")
	second.want("second")
}

func TestAScriptThatNeverOpensItsSessionIsKnownInTheEnd(t *testing.T) {
	s, php := newWatchedStand(t, nil) // no script gives its turn away for an hour
	serve := func(path string, opens bool) {
		b := s.ask(append(session("one"), "REQUEST_URI", path)...)
		script := s.php.next()
		if opens {
			php.open("one")
			php.close("one")
		}
		script.end(page + "x")
		b.want("x")
	}
	besides := func(path string, want bool) {
		t.Helper()
		first := s.ask(append(session("one"), "REQUEST_URI", path)...)
		one := s.php.next()
		second := s.ask(append(session("one"), "REQUEST_URI", path)...)
		if want {
			s.php.next().end(page + "second")
			second.want("second")
		} else {
			s.waiters(1)
			await(t, "the end of the session is wanted", func() bool { return php.is("one", wanted) })
			s.php.none(t)
		}
		one.end(page + "first")
		first.want("first")
		if !want {
			s.php.next().end(page + "second")
			second.want("second")
		}
	}
	for range timesToLearn {
		serve("/plain?n=1", false)
		serve("/uses", false)
	}
	serve("/uses", true)
	besides("/plain?n=2", true)
	besides("/uses", false)
	besides("/new", false)
}

func TestHabitsAreBounded(t *testing.T) {
	var h habits
	of := new(head)
	for i := range 2 * maxHabits {
		of.target = fmt.Appendf(nil, "/%d", i)
		h.learn(of, sessionwatch.Unopened)
		h.learn(of, sessionwatch.Unknown)
	}
	if got := len(h.times); got != maxHabits {
		t.Errorf("%d scripts are known, want %d", got, maxHabits)
	}
}

func TestTheLockOfAFinishedRequestGoesOnUntilItsSessionIsClosed(t *testing.T) {
	s, php := newWatchedStand(t, nil)
	b := s.ask(session("one")...)
	script := s.php.next()
	php.open("one")
	script.end(page + "done") // as fastcgi_finish_request() does: the script goes on
	b.want("done")
	b.again(append(session("two"), "REQUEST_URI", "/other")...) // over the conn whose memory it had
	other := s.php.next()
	next := s.ask(session("one")...)
	s.waiters(1)
	s.php.none(t)
	held := s.locks.Snapshot()
	if got := held[0]; len(held) != 2 || got.Holder.Path != "/page" || got.Holder.Script != "/srv/index.php" {
		t.Errorf("got %+v, want the holder to be known still", held)
	}
	left := s.Configure(s.options(nil))
	other.end(page + "other")
	b.want("other")
	select {
	case <-left:
		t.Error("the old options are said to be out of use, but a lock of theirs is held")
	default:
	}
	php.close("one")
	s.php.next().end(page + "next")
	next.want("next")
	receive(t, "the end of the old options", left)
	s.unlocked()
	await(t, "the watch is stopped", func() bool { return php.is("one", stopped) })
}

func TestTheLockOfAFinishedRequestExpires(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) { o.Policy.Expiry = 50 * time.Millisecond })
	b := s.ask(session("one")...)
	script := s.php.next()
	php.open("one")
	script.end(page + "done")
	b.want("done")
	next := s.ask(session("one")...)
	s.php.next().end(page + "next")
	next.want("next")
	await(t, "the watch is stopped", func() bool { return php.is("one", stopped) })
	receive(t, "the end of the options", s.Configure(s.options(nil)))
	await(t, "the expiry is counted", func() bool { return s.Stats().Expired == 1 }) // after the next request has the lock
}

// Of a session that cannot be seen, or that may be kept elsewhere, it is not known whether the script has it open: not
// even if the script has never opened those that could be seen.
func TestASessionThatMayBeElsewhereIsHeldToTheEnd(t *testing.T) {
	for _, id := range []string{"unknown", "made-up"} {
		for _, habit := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, habit %v", id, habit), func(t *testing.T) {
				s, _ := newWatchedStand(t, func(o *Options) { o.OpenWithin = time.Millisecond })
				for range timesToLearn {
					if habit {
						s.serve(session("kept"))
					}
				}
				first := s.ask(session(id)...)
				script := s.php.next()
				second := s.ask(session(id)...)
				s.waiters(1)
				time.Sleep(5 * minPatience)
				s.php.none(t)
				script.end(page + "first")
				first.want("first")
				s.php.next().end(page + "second")
				second.want("second")
				s.unlocked()
			})
		}
	}
}

// serve serves a request that meets nothing.
func (s *stand) serve(params []string) {
	s.t.Helper()
	b := s.ask(params...)
	s.php.next().end(page + "x")
	b.want("x")
}

// When evidence comes while a request waits, the turn is given away after all.
func TestATurnIsGivenAwayOnceThereIsEvidence(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) { o.OpenWithin = time.Millisecond })
	first := s.ask(session("made-up")...)
	script := s.php.next()
	second := s.ask(session("made-up")...)
	s.waiters(1)
	php.change("made-up", sessionwatch.Shut)
	s.php.next().end(page + "second")
	second.want("second")
	script.end(page + "first")
	first.want("first")
}

// TestNothingIsLearntOfWhatProvesNothing: made-up ids in strict mode and out of it, sessions that are kept elsewhere,
// and those that may have been opened and closed unseen.
func TestNothingIsLearntOfWhatProvesNothing(t *testing.T) {
	for name, c := range map[string]struct{ id, header string }{
		"made-up":                            {"made-up", ""},
		"made up, answered with a new id":    {"made-up", "Set-Cookie: PHPSESSID=another; path=/\r\n"},
		"known, but replaced in strict mode": {"expired", "Set-Cookie: PHPSESSID=another; path=/\r\n"},
		"shut":                               {"shut", ""},
		"cannot be seen":                     {"unknown", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil) // no turn is given away for an hour
			for range 2 * timesToLearn {
				b := s.ask(session(c.id)...)
				s.php.next().end(c.header + page + "x")
				b.want("x")
			}
			first := s.ask(session("kept")...)
			script := s.php.next()
			second := s.ask(session("kept")...)
			s.waiters(1)
			await(t, "the end of the session is wanted", func() bool { return php.is("kept", wanted) })
			time.Sleep(10 * time.Millisecond)
			s.php.none(t)
			script.end(page + "first")
			first.want("first")
			s.php.next().end(page + "second")
			second.want("second")
		})
	}
}

func TestAScriptWhoseBrowserHasGoneHoldsNoClosedSession(t *testing.T) {
	s, php := newWatchedStand(t, nil)
	s.ask(session("one")...).Close()
	script := s.php.next()
	php.open("one")
	next := s.ask(session("one")...)
	s.waiters(1)
	s.php.none(t)
	php.close("one")
	s.php.next().end(page + "next")
	next.want("next")
	script.end(page)
}

func TestOnlyHoldersAreWatched(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) {
		read, off := o.Policy, o.Policy
		read.Mode, off.Mode = Read, Off
		o.Routes = []Route{{Paths: []string{"/read"}, Policy: read}, {Paths: []string{"/off"}, Policy: off}}
	})
	for _, path := range []string{"/read", "/off"} {
		b := s.ask(append(session("one"), "SCRIPT_NAME", path)...)
		s.php.next().end(page + "x")
		b.want("x")
	}
	b := s.ask()
	s.php.next().end(page + "x")
	b.want("x")
	php.mu.Lock()
	defer php.mu.Unlock()
	if len(php.all) != 0 {
		t.Errorf("%d sessions were watched, want none", len(php.all))
	}
}

func TestSomebodyOnAnotherHostMayWait(t *testing.T) {
	s, php := newWatchedStand(t, func(o *Options) { o.OpenWithin, o.SharedLocks = time.Millisecond, true })
	b, opens := s.ask(session("never")...), s.ask(session("opens")...)
	one, two := s.php.next(), s.php.next()
	php.open("opens")
	await(t, "the turn is given away", func() bool { return s.Stats().GivenAway == 1 })
	await(t, "the end of the other session is wanted", func() bool { return php.is("opens", wanted) })
	if held := s.locks.Snapshot(); len(held) != 1 {
		t.Errorf("%d locks are held, want that of the session that is open", len(held))
	}
	one.end(page + "x")
	two.end(page + "x")
	b.want("x")
	opens.want("x")
}
