package gate

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// ledger is what the Meters of a gate were told.
type ledger struct {
	mu     sync.Mutex
	waits  map[string]int // by route and end
	holds  map[string]int
	script map[string]time.Duration // by their names: how long they held locks
	behind map[string]int           // waits by the script that was ahead
	ends   map[string]int           // requests by route and outcome
	slow   map[string]int           // by script
	times  map[string]Times         // of the last request of each script
	waited time.Duration
}

func newLedger() *ledger {
	return &ledger{waits: map[string]int{}, holds: map[string]int{}, script: map[string]time.Duration{}, behind: map[string]int{},
		ends: map[string]int{}, slow: map[string]int{}, times: map[string]Times{}}
}

// meter is for Options.Meter.
func (l *ledger) meter(route string) Meter { return &chapter{l, route} }

// chapter is the part of a ledger that is one route's.
type chapter struct {
	*ledger
	route string
}

func (p *chapter) Waited(outcome Outcome, waited time.Duration, behind *sessionlock.Description) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits[p.route+" "+outcome.String()]++
	p.behind[behind.Script]++
	p.waited += waited
}

func (p *chapter) Held(outcome HoldOutcome, held time.Duration, script []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds[p.route+" "+outcome.String()]++
	p.script[string(script)] += held
}

func (p *chapter) Ended(outcome Outcome, times *Times, script []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends[p.route+" "+outcome.String()]++
	p.times[string(script)] = *times
}

func (p *chapter) Slow(script string, _ time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow[script]++
}

func (l *ledger) want(t *testing.T, what string, got func() map[string]int, want map[string]int) {
	t.Helper()
	await(t, fmt.Sprintf("the %s are %v", what, want), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return maps.Equal(got(), want)
	})
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestWaitsAndHoldsAreMeasuredByRoute(t *testing.T) {
	l := newLedger()
	s := newStand(t, func(o *Options) {
		o.Meter = l.meter
		hurried := o.Policy
		hurried.MaxWait = time.Millisecond
		o.Routes = []Route{{Name: "hurried", Paths: []string{"/hurried"}, Policy: hurried}}
	})
	first := s.ask(append(session("one"), "SCRIPT_FILENAME", "/srv/export.php")...)
	holder := s.php.next()
	s.ask(append(session("one"), "REQUEST_URI", "/hurried")...).wantStatus("503")
	second := s.ask(session("one")...)
	s.waiters(1)
	stranger := s.ask() // without a session
	s.php.next().end(page)
	stranger.want("")
	holder.end(page + "first")
	first.want("first")
	s.php.next().end(page + "second")
	second.want("second")
	s.unlocked()

	l.want(t, "waits", func() map[string]int { return l.waits }, map[string]int{" held": 2, "hurried max_wait": 1})
	l.want(t, "holds", func() map[string]int { return l.holds }, map[string]int{" released": 2})
	l.want(t, "scripts ahead", func() map[string]int { return l.behind }, map[string]int{"": 1, "/srv/export.php": 2})
	if l.script["/srv/export.php"] < l.waited/2 || l.script["/srv/index.php"] == 0 {
		t.Errorf("got holds of %v, and others waited for %v", l.script, l.waited)
	}
	await(t, "all have ended", func() bool {
		ends := s.Stats().Routes[0].Outcomes
		return ends[OutcomeHeld]+ends[OutcomeNone] == 3
	})
	routes := s.Stats().Routes
	if len(routes) != 2 || routes[0].Name != "" || routes[1].Name != "hurried" {
		t.Fatalf("got routes %+v, want the gate's own and hurried", routes)
	}
	if got := routes[0].Outcomes; got[OutcomeHeld] != 2 || got[OutcomeNone] != 1 {
		t.Errorf("got %v of the gate's own", got)
	}
	if got := routes[1].Outcomes; got[OutcomeMaxWait] != 1 {
		t.Errorf("got %v of hurried", got)
	}
	s.Configure(s.options(nil))
	if got := s.Stats().Routes; len(got) != 2 || got[0].Outcomes[OutcomeHeld] != 2 {
		t.Errorf("after a reload: got %+v, want what was counted before", got)
	}
}

func TestAHoldIsMeasuredOnceHoweverItEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  HoldOutcome
		edit func(*Options)
		act  func(*stand)
	}{
		{"by its script", HoldReleased, nil, func(*stand) {}},
		{"by its expiry", HoldExpired, func(o *Options) { o.Policy.Expiry = time.Millisecond }, nil},
		{"by an operator", HoldBroken, nil, func(s *stand) { s.locks.Break(s.locks.Snapshot()[0].Key) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLedger()
			s := newStand(t, func(o *Options) {
				o.Meter = l.meter
				if c.edit != nil {
					c.edit(o)
				}
			})
			b := s.ask(session("one")...)
			script := s.php.next()
			if c.act != nil {
				c.act(s)
			}
			if c.end != HoldReleased { // while the script runs
				l.want(t, "holds", func() map[string]int { return l.holds }, map[string]int{" " + c.end.String(): 1})
			}
			script.end(page + "x")
			b.want("x")
			s.unlocked()
			await(t, "the request is over", func() bool { return s.Stats().Routes[0].Outcomes[OutcomeHeld] == 1 })
			l.want(t, "holds", func() map[string]int { return l.holds }, map[string]int{" " + c.end.String(): 1})
			await(t, "its end is counted", func() bool {
				got := s.Stats()
				return (got.Expired == 1) == (c.end == HoldExpired) && (got.LocksBroken == 1) == (c.end == HoldBroken)
			})
			if got := s.Stats(); got.Expired+got.LocksBroken > 1 || got.Lost != 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestNamesOfEndsAreWhole holds the names to the constants: one that lacks a name would be "" in the metrics.
func TestNamesOfEndsAreWhole(t *testing.T) {
	seen := map[string]bool{"": true}
	for end := range Outcomes {
		if seen[end.String()] {
			t.Errorf("end %d has no name of its own: %q", end, end)
		}
		seen[end.String()] = true
	}
	seen = map[string]bool{"": true}
	for end := range HoldOutcomes {
		if seen[end.String()] {
			t.Errorf("end %d of a hold has no name of its own: %q", end, end)
		}
		seen[end.String()] = true
	}
}
