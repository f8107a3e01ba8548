package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// history is the last hour: which scripts held locks for how long, and how long others waited behind them. It is kept
// by the minute, and bounded whatever scripts there are.
type history struct {
	now   func() time.Time
	began time.Time

	mu    sync.Mutex
	gates map[string]*gateHistory // by their names; none is ever forgotten
}

const (
	historyMinutes = 60
	historyScripts = 200 // of one gate in one minute; those that matter least are counted together
	historyName    = 512 // bytes of its name
	pageScripts    = 100 // on the page
)

// gateHistory is the history of one gate.
type gateHistory struct {
	mu      sync.Mutex
	minutes [historyMinutes]minute
	now     func() time.Time
}

// minute is what happened in one.
type minute struct {
	number  int64 // since 1970
	scripts map[string]*scriptFigures
	floor   time.Duration // no script matters less: as of when it was last looked for
	waits   [len(waitBounds) + 1]uint64
}

// scriptFigures are those of one script.
type scriptFigures struct {
	holds, blocked              uint64
	held, longest, blockedOther time.Duration
}

// waitBounds are the buckets of the waits.
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

// blocked notes that somebody waited for d behind a script.
func (g *gateHistory) blocked(script string, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.minute().scriptNamed(script, d)
	s.blocked++
	s.blockedOther += d
}

// waited notes that a request waited for d.
func (g *gateHistory) waited(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := 0
	for i < len(waitBounds) && d > waitBounds[i] {
		i++
	}
	g.minute().waits[i]++
}

// minute returns the one that it is now, in the place of the one an hour ago. It is called with the mutex held.
func (g *gateHistory) minute() *minute {
	number := g.now().Unix() / 60
	m := &g.minutes[number%historyMinutes]
	if m.number != number {
		*m = minute{number: number, scripts: make(map[string]*scriptFigures)}
	}
	return m
}

// otherScripts is where scripts are counted that there is no room for.
const otherScripts = "(others)"

// script returns the figures of a script, to which d is going to be added. One that is known is found without a copy
// of its name.
func (m *minute) script(name []byte, d time.Duration) *scriptFigures {
	name = name[:min(len(name), historyName)]
	if s := m.scripts[string(name)]; s != nil {
		return s
	}
	return m.newScript(string(name), d)
}

// scriptNamed is script for who has the name as a string.
func (m *minute) scriptNamed(name string, d time.Duration) *scriptFigures {
	name = name[:min(len(name), historyName)]
	if s := m.scripts[name]; s != nil {
		return s
	}
	return m.newScript(strings.Clone(name), d)
}

func (m *minute) newScript(name string, d time.Duration) *scriptFigures {
	if len(m.scripts) >= historyScripts && !m.makeRoom(d) {
		return m.others()
	}
	s := new(scriptFigures)
	m.scripts[name] = s
	return s
}

func (m *minute) others() *scriptFigures {
	s := m.scripts[otherScripts]
	if s == nil {
		s = new(scriptFigures)
		m.scripts[otherScripts] = s
	}
	return s
}

// makeRoom counts the script that matters least with the others, if it matters less than d.
func (m *minute) makeRoom(d time.Duration) bool {
	if d <= m.floor {
		return false
	}
	least := ""
	for name, s := range m.scripts {
		if name != otherScripts && (least == "" || s.matter() < m.scripts[least].matter()) {
			least = name
		}
	}
	m.floor = m.scripts[least].matter()
	if d <= m.floor {
		return false
	}
	m.others().add(m.scripts[least])
	delete(m.scripts, least)
	return true
}

// matter is how much a script matters to others.
func (s *scriptFigures) matter() time.Duration { return s.held + s.blockedOther }

func (s *scriptFigures) add(o *scriptFigures) {
	s.holds += o.holds
	s.blocked += o.blocked
	s.held += o.held
	s.blockedOther += o.blockedOther
	s.longest = max(s.longest, o.longest)
}

// HistoryPage is the answer to GET /history: the scripts for which others waited longest, and those that held longest,
// are first.
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
	BlockedMS int64  `json:"blocked_ms_total"` // that others waited who came while it held the lock
	Blocked   uint64 `json:"blocked"`          // how many they were
}

// HistoryWaits is how many requests waited for so long, and longer than those of the line before. Requests that did
// not have to wait are in none.
type HistoryWaits struct {
	UpToMS *int64 `json:"le_ms"` // null: without limit
	Count  uint64 `json:"count"`
}

func (a *Admin) getHistory(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, a.history.page())
}

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
		return cmp.Or(cmp.Compare(b.BlockedMS, a.BlockedMS), cmp.Compare(b.HeldMS, a.HeldMS), cmp.Compare(a.Script, b.Script))
	})
	page.Scripts = page.Scripts[:min(len(page.Scripts), pageScripts)]
	return page
}

// add adds the minutes of a gate that are younger than that of the number oldest.
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
		})
	}
}
