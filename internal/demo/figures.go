package demo

import (
	"encoding/json"
	"io"
	"math"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// Figures are all measurements. Parts that were not run are missing.
type Figures struct {
	Nginx   string  `json:"nginx"` // versions
	PHP     string  `json:"php"`
	Workers int     `json:"workers"` // of each PHP-FPM pool
	Seconds float64 `json:"seconds"` // that the demo took

	TwoScripts *Pair[TwoScripts] `json:"two_scripts,omitempty"`
	Bursts     []Burst           `json:"bursts,omitempty"`
	Hang       *Hang             `json:"hang,omitempty"`
	Reloads    *Pair[Reloads]    `json:"reloads,omitempty"`
	Fleet      *Fleet            `json:"fleet,omitempty"`
	Export     *Export           `json:"export,omitempty"`
}

// Pair is one figure of both columns.
type Pair[T any] struct {
	Without T `json:"without_gate"`
	With    T `json:"with_gate"`
}

// of returns the figure of a side.
func (p *Pair[T]) of(s *side) *T {
	if s.gated {
		return &p.With
	}
	return &p.Without
}

// Held is how many workers of a pool a connection held.
type Held struct {
	Median int `json:"median"`
	Most   int `json:"most"`
}

// TwoScripts is what two concurrent scripts of one session took.
type TwoScripts struct {
	Total   Millis `json:"total_ms"`
	Workers Held   `json:"workers_held"`
}

// Burst is what a burst of requests of one session did to all others, for one session handler.
type Burst struct {
	Handler string `json:"handler"` // files, memcached or unlocked
	Skipped string `json:"skipped,omitempty"`
	*Pair[BurstSide]
}

// BurstSide is one column of a Burst.
type BurstSide struct {
	Total    Millis         `json:"total_ms"` // until the last answer of the burst
	Before   Latency        `json:"others_before"`
	During   Latency        `json:"others_during"`
	Failed   int            `json:"others_failed"` // not answered 200, before or during
	Workers  Held           `json:"workers_held"`
	Answers  map[string]int `json:"answers"` // of the burst, by status; "broken" without one
	Lost     int            `json:"updates_lost"`
	Requests int            `json:"requests"`
}

// Hang is the effect of a script that hangs.
type Hang struct {
	Bound Millis `json:"bound_ms"` // the longest time that anything was waited for
	// Files is with PHP's handler files, whose own lock lasts as long as the script.
	Files Pair[HangSide] `json:"files"`
	// Unlocked is with a handler without a lock, so that the gate's lock, if any, is the only one.
	Unlocked Pair[HangUnlocked] `json:"unlocked"`
}

// HangSide is one column of a Hang where PHP locks.
type HangSide struct {
	Pages          int    `json:"pages"` // that the visitor has requested besides the script
	PagesAnswered  int    `json:"pages_answered"`
	PageStatus     int    `json:"page_status"` // of most of them
	PageWait       Millis `json:"page_wait_ms"`
	Workers        Held   `json:"workers_held"`
	Others         int    `json:"others"`
	OthersAnswered int    `json:"others_answered"`
	Freed          Wait   `json:"session_freed"`
}

// HangUnlocked is one column of a Hang where PHP does not lock.
type HangUnlocked struct {
	Stays  Wait `json:"visitor_stays"`
	Leaves Wait `json:"visitor_leaves"`
}

// Wait is the time until a page of the session worked, if one did.
type Wait struct {
	Took Millis `json:"ms"`
	Done bool   `json:"done"`
}

// Reloads is the effect of a visitor who reloads a page repeatedly.
type Reloads struct {
	Requests int    `json:"requests"`
	Scripts  int    `json:"scripts_run"`
	Last     Millis `json:"last_answered_ms"` // since the last reload
	Workers  Held   `json:"workers_held"`
}

// Fleet is the effect of a burst of one session on hosts that share their sessions.
type Fleet struct {
	Skipped  string    `json:"skipped,omitempty"`
	Requests int       `json:"requests"`
	Without  FleetSide `json:"without_gate"`
	Alone    FleetSide `json:"gates_without_a_shared_store"`
	With     FleetSide `json:"with_gate"`
}

// FleetSide is one run of a Fleet.
type FleetSide struct {
	Total   Millis         `json:"total_ms"` // until the last answer
	Answers map[string]int `json:"answers"`  // by status
	Lost    int            `json:"updates_lost"`
}

// Export is what a progress bar sees of an export that has closed its session.
type Export struct {
	Without ExportSide `json:"without_gate"`
	Blind   ExportSide `json:"gate_that_does_not_watch"`
	With    ExportSide `json:"with_gate"`
	// Unlocked is with a handler without a lock, whose sessions the gate can see in PHP-FPM's workers only.
	Unlocked Pair[ExportSide] `json:"unlocked"`
}

// ExportSide is one run of an Export.
type ExportSide struct {
	Polls   int    `json:"polls_answered_meanwhile"`
	Slowest Millis `json:"slowest_poll_ms"` // one that waited for the export's end, if any did
	Total   Millis `json:"total_ms"`        // until the export's answer was there
}

// Millis is a duration in milliseconds.
type Millis float64

func millis(d time.Duration) Millis { return Millis(d.Seconds() * 1000) }

// MarshalJSON writes hundredths of a millisecond: nothing here is measured better.
func (m Millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, math.Round(float64(m)*100)/100, 'f', -1, 64), nil
}

func newFigures() *Figures {
	return &Figures{
		Nginx:   programVersion("nginx", "-v", `nginx/([\d.]+)`),
		PHP:     programVersion("php-fpm", "-v", `PHP ([\d.]+)`),
		Workers: workers,
	}
}

// programVersion returns a program's version, "?" if it cannot be found.
func programVersion(name, flag, pattern string) string {
	path, err := rig.Find(name)
	if err != nil {
		return "?"
	}
	text, _ := exec.Command(path, flag).CombinedOutput()
	if m := regexp.MustCompile(pattern).FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return "?"
}

func writeJSON(w io.Writer, f *Figures) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(f)
}
