package admin

import (
	"fmt"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// clock is a time that a test sets.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func newClock(s *stand) *clock {
	c := &clock{time.Date(2026, 1, 2, 3, 4, 30, 0, time.UTC)}
	s.history.now, s.history.began = c.now, c.now()
	return c
}

func TestHistoryTellsTheSlowestHolders(t *testing.T) {
	s := newStand(t)
	clock := newClock(s)
	www, shop := s.Meters("www")(""), s.Meters("shop")("api")
	export := sessionlock.Description{Gate: "www", Script: "/srv/export.php"}
	www.Held(gate.HoldReleased, 2*time.Second, []byte("/srv/export.php"))
	clock.Time = clock.Add(20 * time.Minute)
	www.Held(gate.HoldExpired, 5*time.Second, []byte("/srv/export.php"))
	www.Held(gate.HoldReleased, 10*time.Millisecond, []byte("/srv/poll.php"))
	shop.Held(gate.HoldReleased, 10*time.Second, []byte("/srv/import.php"))
	www.Waited(gate.OutcomeHeld, 1500*time.Millisecond, &export)
	shop.Waited(gate.OutcomeMaxWait, 4*time.Second, &export)
	www.Waited(gate.OutcomeHeld, 0, &sessionlock.Description{})
	www.Waited(gate.OutcomeHeld, time.Minute, &sessionlock.Description{})

	page := s.history.page()
	if got, want := page.Since, "2026-01-02T03:04:30Z"; got != want {
		t.Errorf("since: got %s, want %s, when it began", got, want)
	}
	want := []HistoryScript{
		{"/srv/export.php", "www", 2, 7000, 5000, 5500, 2, 0, 0, 0, 0, 0, 0},
		{"/srv/import.php", "shop", 1, 10000, 10000, 0, 0, 0, 0, 0, 0, 0, 0},
		{"/srv/poll.php", "www", 1, 10, 10, 0, 0, 0, 0, 0, 0, 0, 0},
	}
	if got := page.Scripts; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, w := range page.Waits {
		want := uint64(0)
		if w.UpToMS == nil || *w.UpToMS == 3000 || *w.UpToMS == 10000 {
			want = 1
		}
		if w.Count != want {
			t.Errorf("got %d waits in a bucket, want %d", w.Count, want)
		}
	}

	clock.Time = clock.Add(45 * time.Minute)
	if got := s.history.page(); got.Scripts[0].Holds != 1 || got.Scripts[0].HeldMS != 5000 || got.Since != "2026-01-02T03:10:00Z" {
		t.Errorf("after more than an hour: got %+v, want the first hold to be forgotten", got)
	}
	clock.Time = clock.Add(time.Hour)
	if got := s.history.page(); len(got.Scripts) != 0 || got.Waits[7].Count != 0 {
		t.Errorf("an hour after all: got %+v, want nothing", got)
	}
}

// TestHistoryTellsWhereTheTimeOfRequestsGoes, also of a script that needs no lock, and of one that has not ended.
func TestHistoryTellsWhereTheTimeOfRequestsGoes(t *testing.T) {
	s := newStand(t)
	newClock(s)
	www := s.Meters("www")("")
	www.Ended(gate.OutcomeHeld, &gate.Times{Session: time.Second, Connection: 2 * time.Second, PHP: 3 * time.Second, Queued: true, Sent: true}, []byte("/a.php"))
	www.Ended(gate.OutcomeNone, &gate.Times{PHP: 4 * time.Second, Queued: true, Sent: true}, []byte("/a.php"))
	www.Ended(gate.OutcomeMaxWait, &gate.Times{Session: 10 * time.Second}, []byte("/b.php"))
	www.Slow("/c.php", 5*time.Second)
	want := []HistoryScript{
		{Script: "/a.php", Gate: "www", Requests: 2, WaitMS: 1000, QueueMS: 2000, PHPMS: 7000, PHPMaxMS: 4000},
		{Script: "/b.php", Gate: "www", Requests: 1, WaitMS: 10_000},
		{Script: "/c.php", Gate: "www", Slow: 1},
	}
	if got := s.history.page().Scripts; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestHistoryKeepsTheSlowOnesAmongManyScripts(t *testing.T) {
	s := newStand(t)
	newClock(s)
	m := s.Meters("www")("")
	for i := range 5 * historyScripts {
		m.Held(gate.HoldReleased, time.Millisecond, fmt.Appendf(nil, "/quick/%d.php", i))
	}
	m.Held(gate.HoldReleased, time.Second, []byte("/slow.php"))
	for i := range 5 * historyScripts {
		m.Held(gate.HoldReleased, 2*time.Millisecond, fmt.Appendf(nil, "/late/%d.php", i))
	}
	m.Held(gate.HoldReleased, 30*time.Second, []byte("/slowest.php"))
	g := s.history.gate("www")
	if got := len(g.minute().scripts); got > historyScripts+1 {
		t.Errorf("got %d scripts, want at most %d and the others", got, historyScripts)
	}
	page := s.history.page()
	seen := make(map[string]HistoryScript)
	for _, script := range page.Scripts {
		seen[script.Script] = script
	}
	if seen["/slowest.php"].HeldMS != 30000 || seen["/slow.php"].HeldMS != 1000 {
		t.Errorf("got %+v, want the slow ones to be among them", page.Scripts[:3])
	}
	holds := uint64(0)
	for _, f := range g.minute().scripts {
		holds += f.holds
	}
	if want := uint64(10*historyScripts + 2); holds != want {
		t.Errorf("got %d holds, want none of %d to be lost", holds, want)
	}
}

func TestHistoryCutsLongNames(t *testing.T) {
	s := newStand(t)
	newClock(s)
	s.Meters("www")("").Held(gate.HoldReleased, time.Second, make([]byte, 100_000))
	if got := len(s.history.page().Scripts[0].Script); got != historyName {
		t.Errorf("got a name of %d bytes, want %d", got, historyName)
	}
}
