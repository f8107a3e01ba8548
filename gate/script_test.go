package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// fakeWorker is the worker of every connection: its session is the test's to set, and signals are counted.
type fakeWorker struct {
	mu          sync.Mutex
	failure     error // of Find
	session     phpworker.Session
	interrupted chan struct{}
	terminated  chan struct{}
	signaled    func() // is called within each signal, before it is counted; may be nil
	reading     func() // is called before each read of the session; may be nil
	found       int    // workers that have not been closed
	finds       int
}

func newFakeWorker() *fakeWorker {
	return &fakeWorker{
		session:     phpworker.Session{Status: phpworker.None, Handler: "files"},
		interrupted: make(chan struct{}, 9), terminated: make(chan struct{}, 9),
	}
}

func (w *fakeWorker) Find(syscall.RawConn) (phpworker.Worker, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finds++
	if w.failure != nil {
		return nil, w.failure
	}
	w.found++
	return w, nil
}

func (w *fakeWorker) Ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure
}

func (w *fakeWorker) set(s phpworker.Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session = s
}

func (w *fakeWorker) Session() (phpworker.Session, error) {
	if w.reading != nil {
		w.reading()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session, nil
}

func (w *fakeWorker) Await(ctx context.Context, seen phpworker.Session, pause time.Duration) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if now, err := w.Session(); err != nil || now != seen {
			return err
		}
	}
}

func (w *fakeWorker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found--
	return nil
}

func (w *fakeWorker) PID() int                              { return 1 }
func (w *fakeWorker) Activity() (phpworker.Activity, error) { return phpworker.Activity{}, nil }
func (w *fakeWorker) Interrupt(string) error                { return w.signal(w.interrupted) }
func (w *fakeWorker) Terminate(string) error                { return w.signal(w.terminated) }

func (w *fakeWorker) signal(to chan<- struct{}) error {
	if w.signaled != nil {
		w.signaled()
	}
	to <- struct{}{}
	return nil
}

// newWorkerStand is a stand whose gate looks at w.
func newWorkerStand(t *testing.T, w *fakeWorker, edit func(*Options)) *stand {
	t.Helper()
	workers := NewWorkers(w, hclog.NewNullLogger())
	s := newStand(t, func(o *Options) {
		o.Workers = workers
		if edit != nil {
			edit(o)
		}
	})
	t.Cleanup(func() {
		await(t, "each worker that was found is closed", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.found == 0
		})
		workers.Close()
	})
	return s
}

func active(id string) phpworker.Session {
	return phpworker.Session{Status: phpworker.Active, ID: id, Handler: "files", Opened: phpworker.Before}
}

func none(id string, opened phpworker.Opened) phpworker.Session {
	return phpworker.Session{Status: phpworker.None, ID: id, Handler: "files", Opened: opened}
}

// TestWhatAWorkerShowsOfASession: the rules of evidence. "Not opened" counts only of a session that PHP uses, with a
// handler that locks; "closed" only if this very session was seen open, or its id and $_SESSION show that it was and no
// other one was there before.
func TestWhatAWorkerShowsOfASession(t *testing.T) {
	redis := func(s phpworker.Session) phpworker.Session { s.Handler = "redis"; return s }
	const yes, no, perhaps = phpworker.Before, phpworker.NotYet, phpworker.NotKnown
	for name, c := range map[string]struct {
		used    bool // PHP was seen to use the session before
		isNew   bool
		uploads bool
		seen    []phpworker.Session
		want    sessionwatch.State
		uses    bool // it is noted that PHP uses the session, with a lock
	}{
		"nothing, of a session that was never used": {seen: []phpworker.Session{none("", perhaps)}, want: sessionwatch.Unknown},
		"nothing": {used: true, seen: []phpworker.Session{none("", perhaps)}, want: sessionwatch.Unopened, uses: true},
		"nothing, no lock of PHP's": {
			used: true, seen: []phpworker.Session{redis(none("", perhaps))}, want: sessionwatch.Unknown, uses: true,
		},
		"nothing, then another handler than php.ini's": {
			used: true, seen: []phpworker.Session{none("", perhaps), redis(active("own"))}, want: sessionwatch.Open,
		},
		"open":                   {seen: []phpworker.Session{active("own")}, want: sessionwatch.Open, uses: true},
		"open, no lock of PHP's": {seen: []phpworker.Session{redis(active("own"))}, want: sessionwatch.Open},
		"another one is open":    {seen: []phpworker.Session{active("other")}, want: sessionwatch.Unknown},
		"open, then closed":      {seen: []phpworker.Session{active("own"), none("own", yes)}, want: sessionwatch.Closed, uses: true},
		"open, then closed, by itself": {
			seen: []phpworker.Session{active("own"), none("own", perhaps)}, want: sessionwatch.Closed, uses: true,
		},
		"open, then destroyed": {seen: []phpworker.Session{active("own"), none("", no)}, want: sessionwatch.Closed, uses: true},
		"open, renewed": {
			seen: []phpworker.Session{active("own"), active("other")}, want: sessionwatch.Open, uses: true,
		},
		"open, renewed, then closed": {
			seen: []phpworker.Session{active("own"), active("other"), none("other", yes)}, want: sessionwatch.Closed, uses: true,
		},
		"another one, opened and closed": {
			seen: []phpworker.Session{active("other"), none("other", yes)}, want: sessionwatch.Unknown,
		},
		"another one, then its id": {
			seen: []phpworker.Session{active("other"), none("other", yes), none("own", yes)}, want: sessionwatch.Unknown,
		},
		"another one, closed, then its id": {
			seen: []phpworker.Session{none("other", yes), none("own", yes)}, want: sessionwatch.Unknown,
		},
		"another one, then it is open": {
			seen: []phpworker.Session{active("other"), none("own", yes), active("own")}, want: sessionwatch.Open, uses: true,
		},
		"another one, then it, closed": {
			seen: []phpworker.Session{active("other"), active("own"), none("own", yes)}, want: sessionwatch.Closed, uses: true,
		},
		"closed unseen":             {seen: []phpworker.Session{none("own", yes)}, want: sessionwatch.Closed},
		"its id, not known":         {seen: []phpworker.Session{none("own", perhaps)}, want: sessionwatch.Unknown},
		"renewed and closed unseen": {seen: []phpworker.Session{none("other", yes)}, want: sessionwatch.Unknown},
		"opened, without an id":     {seen: []phpworker.Session{none("", yes)}, want: sessionwatch.Unknown},
		"its id was set, no more": {
			used: true, seen: []phpworker.Session{none("own", no)}, want: sessionwatch.Unknown, uses: true,
		},
		"another id was set, no more": {
			used: true, seen: []phpworker.Session{none("other", no)}, want: sessionwatch.Unknown, uses: true,
		},
		"another id, not known": {
			used: true, seen: []phpworker.Session{none("other", perhaps)}, want: sessionwatch.Unknown, uses: true,
		},
		"closed and open again": {
			seen: []phpworker.Session{none("own", yes), active("own")}, want: sessionwatch.Closed, uses: true,
		},
		"new, and open":            {isNew: true, seen: []phpworker.Session{active("own")}, want: sessionwatch.Open, uses: true},
		"new, another one is open": {isNew: true, seen: []phpworker.Session{active("other")}, want: sessionwatch.Unknown},
		"new, and not there":       {isNew: true, seen: []phpworker.Session{none("", no)}, want: sessionwatch.Unknown},
		"new, and gone": {
			isNew: true, seen: []phpworker.Session{active("own"), none("", no)}, want: sessionwatch.Closed, uses: true,
		},
		"an upload, its progress is kept": {
			uploads: true, seen: []phpworker.Session{active("own"), none("own", yes)}, want: sessionwatch.Unknown,
		},
		"an upload, nothing": {
			uploads: true, used: true, seen: []phpworker.Session{none("", perhaps)}, want: sessionwatch.Unknown, uses: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			workers := NewWorkers(newFakeWorker(), hclog.NewNullLogger())
			defer workers.Close()
			if c.used {
				workers.noteUse("own")
			}
			closed, reopened := 0, 0
			v := &sessionView{
				script: &phpScript{workers: workers, exchange: new(fcgi.Exchange), users: 1, uploads: c.uploads},
				own:    "own",
				isNew:  c.isNew,
				locks:  new(setup).locks,
				closed: func(string) { closed++ }, reopened: func(string) { reopened++ },
				closedOutside: func() bool { return false },
			}
			v.begin()
			for _, s := range c.seen {
				v.saw(&s)
				v.saw(&s) // the same again changes nothing
			}
			if got, ok := v.seen(); got != c.want || !ok {
				t.Errorf("got state %v, %v, want %v", got, ok, c.want)
			}
			if want := map[bool]int{true: 1}[c.want == sessionwatch.Closed]; closed != want {
				t.Errorf("closed was called %d times, want %d", closed, want)
			}
			if got := workers.uses("own"); got != c.uses {
				t.Errorf("noted that it is used: %v, want %v", got, c.uses)
			}
			v.stop()
			v.saw(&c.seen[0])
			if closed > 1 || reopened > 1 {
				t.Error("something was called after the stop, or twice")
			}
		})
	}
}

func TestALockEndsWhenTheWorkerShowsThatItsSessionIsClosed(t *testing.T) {
	w := newFakeWorker()
	s := newWorkerStand(t, w, nil)
	export := s.ask(session("one")...)
	exporting := s.php.next()
	w.set(active("one"))
	poll := s.ask(session("one")...)
	s.waiters(1)
	time.Sleep(10 * phpworker.LookPause(0))
	s.php.none(t)
	w.set(none("one", phpworker.Before))
	polling := s.php.next() // while the export goes on
	w.set(active("one"))    // the export opens it once more
	await(t, "the session is seen open again", func() bool { return s.Stats().Reopened == 1 })
	polling.end(page + "poll")
	poll.want("poll")
	exporting.end(page + "export")
	export.want("export")
	s.unlocked()
}

// The place of the sessions may show that a session is closed before its worker can be told what it does. The script
// holds no lock then, whatever the worker shows first.
func TestAScriptThatOpensItsSessionAgainIsReportedWhereverItWasSeenClosed(t *testing.T) {
	for name, c := range map[string]struct {
		first phpworker.Session // that the worker shows
		want  uint64            // scripts that have opened their session again
	}{
		"it is open again":            {active("one"), 1},
		"it is still closed":          {none("one", phpworker.Before), 0},
		"another session, or renewed": {active("other"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			w, seen := newFakeWorker(), &sessions{all: map[string]*sessionState{}}
			w.set(phpworker.Session{Status: phpworker.Unknown})
			s := newWorkerStand(t, w, func(o *Options) { o.Watcher = seen })
			export := s.ask(session("one")...)
			exporting := s.php.next()
			seen.open("one")
			poll := s.ask(session("one")...)
			s.waiters(1)
			seen.close("one")
			polling := s.php.next()
			w.set(c.first)
			await(t, "it is reported", func() bool { return s.Stats().Reopened == c.want })
			time.Sleep(2 * closedPause)
			if got := s.Stats().Reopened; got != c.want {
				t.Errorf("%d were reported, want %d", got, c.want)
			}
			polling.end(page + "poll")
			poll.want("poll")
			exporting.end(page + "export")
			export.want("export")
			s.unlocked()
		})
	}
}

// Where PHP does not lock, a script that is known to open its session again keeps its lock until it ends.
func TestAScriptThatOpensItsSessionAgainKeepsTheLockThatPHPLacks(t *testing.T) {
	for name, c := range map[string]struct {
		handler string
		reopens bool    // as the config says
		enters  [3]bool // whether a request enters when the script has closed its session, each time
	}{
		"PHP locks":                                 {"files", false, [3]bool{true, true, true}},
		"PHP locks, and the config says it":         {"files", true, [3]bool{true, true, true}},
		"PHP does not lock":                         {"redis", false, [3]bool{true, false, false}},
		"PHP does not lock, and the config says it": {"redis", true, [3]bool{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFakeWorker()
			s := newWorkerStand(t, w, func(o *Options) { o.Reopens = c.reopens })
			set := func(session phpworker.Session) {
				session.Handler = c.handler
				w.set(session)
			}
			for n, enters := range c.enters {
				set(active("one"))
				table := s.ask(session("one")...)
				showing := s.php.next()
				poll := s.ask(session("one")...)
				s.waiters(1)
				time.Sleep(2 * phpworker.LookPause(0))
				set(none("one", phpworker.Before))
				var polling *script
				if enters {
					polling = s.php.next()
				} else {
					time.Sleep(2 * closedPause)
					s.php.none(t)
				}
				before := s.Stats().Reopened
				set(active("one"))
				if enters {
					await(t, "the session is seen open again", func() bool { return s.Stats().Reopened > before })
				} else {
					time.Sleep(2 * closedPause)
				}
				showing.end(page + "table")
				table.want("table")
				if !enters {
					polling = s.php.next()
				}
				polling.end(page + "poll")
				poll.want("poll")
				if s.unlocked(); !enters && s.Stats().Reopened > before {
					t.Errorf("round %d: a lock that lasted is said to have been gone", n+1)
				}
			}
		})
	}
}

// TestAWorkerIsLeftAloneWhileNoRequestWaits, once it is known that its PHP is understood.
func TestAWorkerIsLeftAloneWhileNoRequestWaits(t *testing.T) {
	w := newFakeWorker()
	s := newWorkerStand(t, w, nil)
	w.set(active("one"))
	first := s.ask(session("one")...)
	script := s.php.next()
	await(t, "a sample is looked at", func() bool { return s.setup.Load().Workers.cover(s.setup.Load().Upstream.Addrs) })
	script.end(page + "x")
	first.want("x")
	s.unlocked()
	w.mu.Lock()
	before := w.finds
	w.mu.Unlock()
	for range 50 {
		s.serve(session("one"))
		s.unlocked() // else the next request could wait for a moment
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.finds != before {
		t.Errorf("%d workers were searched though no request waited", w.finds-before)
	}
}

// TestRightsThatAreMissingAreReported before a script is looked at; a helper that is not there may not be wanted.
func TestRightsThatAreMissingAreReported(t *testing.T) {
	unix, far := netaddr.Addr{Network: "unix", Address: "/run/php"}, netaddr.Addr{Network: "tcp", Address: "10.0.0.7:9000"}
	for name, c := range map[string]struct {
		lack          error
		logs, isBlind bool
	}{
		"nothing":               {nil, false, false},
		"to look at workers":    {phpworker.ErrRights, true, true},
		"only to end scripts":   {phpworker.ErrNoKill, true, false},
		"a helper is not there": {phpworker.ErrHelper, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFakeWorker()
			w.failure = c.lack
			var log strings.Builder
			workers := NewWorkers(w, hclog.New(&hclog.LoggerOptions{Output: &log}))
			if got := errors.Is(workers.unseen(unix), phpworker.ErrRights); got != c.isBlind {
				t.Errorf("whether workers are said not to be seen: got %v", got)
			}
			if got := workers.unseen(far); got != nil {
				t.Errorf("those that may be another host's are said not to be seen: %v", got)
			}
			workers.fails(unix, phpworker.ErrOtherHost, 0)
			if got := workers.unseen(unix); got != nil {
				t.Errorf("those of another host are said not to be seen: %v", got)
			}
			workers.Close()
			if got := strings.Count(log.String(), "docs/WORKERS.md"); got != map[bool]int{true: 1}[c.logs] {
				t.Errorf("it is logged %d times:\n%s", got, log.String())
			}
		})
	}
}

// TestWhereWorkersCannotBeSeenThePlaceIsWatched, and the reason is kept.
func TestWhereWorkersCannotBeSeenThePlaceIsWatched(t *testing.T) {
	w := newFakeWorker()
	w.failure = fmt.Errorf("find: %w", phpworker.ErrOtherHost)
	seen := &sessions{all: map[string]*sessionState{}}
	s := newWorkerStand(t, w, func(o *Options) { o.Watcher, o.OpenWithin = seen, time.Hour })
	export := s.ask(session("one")...)
	exporting := s.php.next()
	seen.open("one")
	poll := s.ask(session("one")...)
	s.waiters(1)
	o := s.setup.Load()
	await(t, "the reason is known", func() bool {
		return errors.Is(o.Workers.Failing(o.Upstream.Addrs[0]), phpworker.ErrOtherHost)
	})
	seen.close("one")
	s.php.next().end(page + "poll")
	poll.want("poll")
	exporting.end(page + "export")
	export.want("export")
}

// TestOneStrangeWorkerDoesNotGiveTheOthersUp, once one was understood: it takes several in a row.
func TestOneStrangeWorkerDoesNotGiveTheOthersUp(t *testing.T) {
	w := NewWorkers(newFakeWorker(), hclog.NewNullLogger())
	defer w.Close()
	var at netaddr.Addr
	w.fails(at, phpworker.ErrLayout, 1)
	if w.mayLook(at) {
		t.Error("workers of which none was ever understood are looked at again at once")
	}
	w.saw(at, true)
	for _, pid := range []int{1, 1, 1, 2, 2} {
		if w.fails(at, phpworker.ErrLayout, pid); !w.mayLook(at) {
			t.Fatalf("given up for worker %d", pid)
		}
	}
	w.saw(at, true)
	for _, pid := range []int{0, 0} {
		if w.fails(at, phpworker.ErrLayout, pid); !w.mayLook(at) {
			t.Fatal("what came before one that was understood counts still")
		}
	}
	if w.fails(at, phpworker.ErrLayout, 3); w.mayLook(at) {
		t.Error("not given up after three in a row")
	}
	w.saw(at, true)
	if w.fails(at, phpworker.ErrRights, 1); w.mayLook(at) {
		t.Error("not given up without the rights")
	}
}

// TestAScriptIsTerminatedThoughItsWorkersWereGivenUp for a while.
func TestAScriptIsTerminatedThoughItsWorkersWereGivenUp(t *testing.T) {
	w := newFakeWorker()
	s := newWorkerStand(t, w, func(o *Options) {
		o.Policy.OnExpiry, o.Policy.Expiry, o.Policy.TerminateGrace = OverdueTerminate, 20*time.Millisecond, time.Minute
	})
	o := s.setup.Load()
	o.Workers.fails(o.Upstream.Addrs[0], phpworker.ErrProgram, 0)
	b := s.ask(session("one")...)
	script := s.php.next()
	receive(t, "the script is interrupted", w.interrupted)
	script.end(page + "PHP's own error")
	b.want("PHP's own error")
}

// TestAScriptThatKeepsItsLockIsTerminated: by PHP's limit, else by the end of its worker, else its lock is released.
func TestAScriptThatKeepsItsLockIsTerminated(t *testing.T) {
	for name, c := range map[string]struct {
		failure  error
		obeys    string // which signal
		status   string // of the answer; empty: PHP's
		outcomes map[string]int
		outcome  Outcome // of the request
		count    func(Stats) uint64
	}{
		"by the limit": {nil, "limit", "", map[string]int{" terminated": 1}, OutcomeHeld,
			func(s Stats) uint64 { return s.Interrupted }},
		"by its worker": {nil, "term", "504", map[string]int{" terminated": 1}, OutcomeTerminated,
			func(s Stats) uint64 { return s.Terminated }},
		"by none": {nil, "", "504", map[string]int{" expired": 1}, OutcomeExpired,
			func(s Stats) uint64 { return s.Unterminated }},
		"without the rights": {phpworker.ErrRights, "", "", map[string]int{" expired": 1}, OutcomeHeld,
			func(s Stats) uint64 { return s.Unterminated }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, holds := newFakeWorker(), newLedger()
			w.failure = c.failure
			unlocked := make(chan string, 9)
			s := newWorkerStand(t, w, func(o *Options) {
				o.Policy.OnExpiry, o.Policy.Expiry, o.Policy.TerminateGrace = OverdueTerminate, 20*time.Millisecond, 20*time.Millisecond
				o.Meter = holds.meter
				o.Unlock = func(handler, id string) { unlocked <- handler + " " + id }
			})
			w.set(active("one"))
			b := s.ask(session("one")...)
			script := s.php.next()
			next := s.ask(session("one")...)
			if c.failure == nil {
				receive(t, "the script is interrupted", w.interrupted)
			}
			if c.obeys == "limit" {
				script.end(page + "PHP's own error")
				b.want("PHP's own error")
			} else if c.failure == nil {
				receive(t, "the worker is ended", w.terminated)
			}
			if c.obeys == "term" {
				script.die()
				if got := receive(t, "the lock of PHP is removed", unlocked); got != "files one" {
					t.Errorf("removed the lock of %q", got)
				}
			}
			if c.status != "" {
				b.wantStatus(c.status)
			}
			s.php.next().end(page + "next")
			next.want("next")
			if c.failure != nil { // as with release
				script.end(page + "goes on")
				b.want("goes on")
			}
			await(t, "it is counted", func() bool { return c.count(s.Stats()) == 1 })
			want := [Outcomes]uint64{OutcomeHeld: 1}
			want[c.outcome]++
			await(t, "the requests have their outcomes", func() bool { return s.Stats().Routes[0].Outcomes == want })
			await(t, "the hold is measured", func() bool {
				holds.mu.Lock()
				defer holds.mu.Unlock()
				for outcome, n := range c.outcomes {
					if holds.holds[outcome] < n { // on a busy machine the next one may be overdue, too
						return false
					}
				}
				return true
			})
		})
	}
}

// TestAnOperatorWithoutRightsChangesNothing: the error has the reason, and the request keeps its lock.
func TestAnOperatorWithoutRightsChangesNothing(t *testing.T) {
	w := newFakeWorker()
	w.failure = phpworker.ErrRights
	s := newWorkerStand(t, w, nil)
	b := s.ask(session("one")...)
	script := s.php.next()
	next := s.ask(session("one")...)
	s.waiters(1)
	locks := s.setup.Load().Locks
	for _, state := range locks.Snapshot() {
		if _, err := Terminate(locks.Holder(state.Key, state.Token)); !errors.Is(err, phpworker.ErrRights) {
			t.Errorf("got %v, want %v", err, phpworker.ErrRights)
		}
	}
	s.php.none(t)
	script.end(page + "goes on")
	b.want("goes on")
	s.php.next().end(page + "next")
	next.want("next")
}
