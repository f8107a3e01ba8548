package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/gate"
)

// history is the last hour: how long each script held locks, how long other requests waited for it, and how long its
// requests took. It is kept per minute, and its size is bounded however many scripts there are.
type history struct {
	now   func() time.Time // for tests
	began time.Time        // the page shows no more than there was

	mu    sync.Mutex
	gates map[string]*gateHistory // by name; entries stay until the process ends
}

const (
	historyMinutes = 60
	historyScripts = 200 // per gate and minute; the scripts with the least weight share one entry
	historyName    = 512 // bytes of a script's name
	pageScripts    = 100 // in the response
)

// gateHistory is the history of one gate.
type gateHistory struct {
	mu      sync.Mutex
	minutes [historyMinutes]minute
	now     func() time.Time
}

// minute is what happened in one minute.
type minute struct {
	number  int64 // minutes since 1970
	scripts map[string]*scriptFigures
	floor   time.Duration // the least weight of a script when makeRoom last searched; weights only grow
	waits   [len(waitBounds) + 1]uint64
}

// scriptFigures are the figures of one script.
type scriptFigures struct {
	holds, blocked              uint64 // blocked: requests of others that waited for it
	held, longest, blockedOther time.Duration

	requests, slow      uint64
	waited, queued      time.Duration // its requests, for their session and for a connection
	inPHP, longestInPHP time.Duration
}

// waitBounds are the upper bounds of the buckets that waits are counted in.
var waitBounds = [...]time.Duration{
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond,
	300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second,
}

func newHistory() *history {
	return &history{now: time.Now, began: time.Now(), gates: make(map[string]*gateHistory)}
}

// gate returns the history of a gate.
func (h *history) gate(name string) *gateHistory {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.gates[name]
	if g == nil {
		g = &gateHistory{now: h.now}
		h.gates[name] = g
	}
	return g
}

// held notes that a script held a lock for d.
func (g *gateHistory) held(script []byte, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.minute().script(script, d)
	s.holds++
	s.held += d
	s.longest = max(s.longest, d)
}

// blocked notes that a request waited for d for a lock that a script held.
func (g *gateHistory) blocked(script string, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.minute().scriptNamed(script, d)
	s.blocked++
	s.blockedOther += d
}

// ended notes a request of a script that has ended.
func (g *gateHistory) ended(script []byte, t *gate.Times) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.minute().script(script, t.PHP)
	s.requests++
	s.waited += t.Session
	s.queued += t.Connection
	s.inPHP += t.PHP
	s.longestInPHP = max(s.longestInPHP, t.PHP)
}

// slow notes a slow request of a script, which has not ended.
func (g *gateHistory) slow(script string, taken time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.minute().scriptNamed(script, taken).slow++
}

// waited notes that a request waited for d.
func (g *gateHistory) waited(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := 0 // the last bucket has no bound
	for i < len(waitBounds) && d > waitBounds[i] {
		i++
	}
	g.minute().waits[i]++
}

// minute returns the current minute, which replaces the one an hour ago. The caller must hold the mutex.
func (g *gateHistory) minute() *minute {
	number := g.now().Unix() / 60
	m := &g.minutes[number%historyMinutes]
	if m.number != number {
		*m = minute{number: number, scripts: make(map[string]*scriptFigures)}
	}
	return m
}

// otherScripts is the name of the entry for the scripts that have none of their own.
const otherScripts = "(others)"

// script returns the figures of a script, to which the caller adds d. It copies the name only for a new entry.
func (m *minute) script(name []byte, d time.Duration) *scriptFigures {
	name = name[:min(len(name), historyName)]
	if s := m.scripts[string(name)]; s != nil {
		return s
	}
	return m.newScript(string(name), d)
}

// scriptNamed is script for a name that is a string.
func (m *minute) scriptNamed(name string, d time.Duration) *scriptFigures {
	name = name[:min(len(name), historyName)]
	if s := m.scripts[name]; s != nil {
		return s
	}
	return m.newScript(strings.Clone(name), d)
}

// newScript returns an entry for a script that has none: its own, or the shared one if the script weighs too little.
func (m *minute) newScript(name string, d time.Duration) *scriptFigures {
	if len(m.scripts) >= historyScripts && !m.makeRoom(d) {
		return m.others()
	}
	s := new(scriptFigures)
	m.scripts[name] = s
	return s
}

// others returns the shared entry. It comes on top of historyScripts.
func (m *minute) others() *scriptFigures {
	s := m.scripts[otherScripts]
	if s == nil {
		s = new(scriptFigures)
		m.scripts[otherScripts] = s
	}
	return s
}

// makeRoom moves the script with the least weight to otherScripts if d outweighs it, and reports whether it did. The
// search goes through all scripts. The floor spares it to a script that weighs too little, as most do when there are so
// many.
func (m *minute) makeRoom(d time.Duration) bool {
	if d <= m.floor {
		return false
	}
	least := ""
	for name, s := range m.scripts {
		if name != otherScripts && (least == "" || s.weight() < m.scripts[least].weight()) {
			least = name
		}
	}
	m.floor = m.scripts[least].weight()
	if d <= m.floor {
		return false
	}
	m.others().add(m.scripts[least])
	delete(m.scripts, least)
	return true
}

// weight is the time that a script has cost: its own and the waits of others.
func (s *scriptFigures) weight() time.Duration { return max(s.held, s.inPHP) + s.blockedOther }

// add adds the figures of o, of another minute or another script.
func (s *scriptFigures) add(o *scriptFigures) {
	s.holds += o.holds
	s.blocked += o.blocked
	s.held += o.held
	s.blockedOther += o.blockedOther
	s.longest = max(s.longest, o.longest)
	s.requests += o.requests
	s.slow += o.slow
	s.waited += o.waited
	s.queued += o.queued
	s.inPHP += o.inPHP
	s.longestInPHP = max(s.longestInPHP, o.longestInPHP)
}

// HistoryPage is the response to GET /history. The scripts come in the order of the time that others waited for them,
// then of the time that they held locks or took in PHP, whichever is longer.
type HistoryPage struct {
	Since   string          `json:"since"`
	Scripts []HistoryScript `json:"scripts"`
	Waits   []HistoryWaits  `json:"waits"`
}

// HistoryScript is what a script did in the last hour.
type HistoryScript struct {
	Script    string `json:"script"`
	Gate      string `json:"gate"`
	Holds     uint64 `json:"holds"`
	HeldMS    int64  `json:"held_ms_total"`
	HeldMaxMS int64  `json:"held_ms_max"`
	BlockedMS int64  `json:"blocked_ms_total"` // waits of requests that came while it held the lock
	Blocked   uint64 `json:"blocked"`          // how many such requests

	Requests uint64 `json:"requests"`       // that have ended
	Slow     uint64 `json:"slow"`           // that took slow_request, or have taken it already
	WaitMS   int64  `json:"wait_ms_total"`  // that they waited for the lock of their session
	QueueMS  int64  `json:"queue_ms_total"` // that they waited for a connection to PHP-FPM
	PHPMS    int64  `json:"php_ms_total"`
	PHPMaxMS int64  `json:"php_ms_max"`
}

// HistoryWaits is one bucket: the number of requests that waited up to UpToMS, but longer than the bucket before.
// Requests that got a free lock are in no bucket.
type HistoryWaits struct {
	UpToMS *int64 `json:"le_ms"` // null: no limit
	Count  uint64 `json:"count"`
}

func (h *history) serve(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, h.page())
}

// page sums up all gates. It locks one after the other, below h.mu; meters never hold two of these mutexes at once.
func (h *history) page() *HistoryPage {
	now := h.now()
	since := now.Truncate(time.Minute).Add(-(historyMinutes - 1) * time.Minute)
	if h.began.After(since) {
		since = h.began
	}
	page := &HistoryPage{
		Since:   timeText(since),
		Scripts: []HistoryScript{},
		Waits:   make([]HistoryWaits, len(waitBounds)+1),
	}
	for i, bound := range waitBounds {
		ms := bound.Milliseconds()
		page.Waits[i].UpToMS = &ms
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, g := range h.gates {
		page.add(name, g, now.Unix()/60-historyMinutes)
	}
	slices.SortFunc(page.Scripts, func(a, b HistoryScript) int {
		return cmp.Or(cmp.Compare(b.BlockedMS, a.BlockedMS),
			cmp.Compare(max(b.HeldMS, b.PHPMS), max(a.HeldMS, a.PHPMS)), cmp.Compare(a.Script, b.Script))
	})
	page.Scripts = page.Scripts[:min(len(page.Scripts), pageScripts)]
	return page
}

// add adds a gate's minutes with numbers above oldest. An entry of the ring that has not been written for an hour has a
// lower one.
func (p *HistoryPage) add(name string, g *gateHistory, oldest int64) {
	sums := make(map[string]*scriptFigures)
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.minutes {
		m := &g.minutes[i]
		if m.number <= oldest {
			continue
		}
		for script, s := range m.scripts {
			if sums[script] == nil {
				sums[script] = new(scriptFigures)
			}
			sums[script].add(s)
		}
		for i, n := range m.waits {
			p.Waits[i].Count += n
		}
	}
	for script, s := range sums {
		p.Scripts = append(p.Scripts, HistoryScript{
			Script: script, Gate: name, Holds: s.holds, HeldMS: s.held.Milliseconds(), HeldMaxMS: s.longest.Milliseconds(),
			BlockedMS: s.blockedOther.Milliseconds(), Blocked: s.blocked,
			Requests: s.requests, Slow: s.slow, WaitMS: s.waited.Milliseconds(), QueueMS: s.queued.Milliseconds(),
			PHPMS: s.inPHP.Milliseconds(), PHPMaxMS: s.longestInPHP.Milliseconds(),
		})
	}
}
