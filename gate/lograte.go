package gate

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Limits of what requests can log: one visitor must neither fill the log nor keep the lines of others out of it.
const (
	logWindow = time.Second
	logLines  = 10 // per text and window, each of another session

	// Slow requests are logged less often, each with another method and path: on a site with long polls all of them are.
	slowWindow = time.Minute
	slowLines  = 10
)

// requestLog logs how requests ended, with a few lines per text in a window of time. At the end of the window it logs
// the number of lines left out. Create it with newRequestLog.
type requestLog struct {
	log    hclog.Logger
	window time.Duration
	most   int // lines per text and window

	mu      sync.Mutex
	windows map[string]*logBurst // by text; the current windows
}

func newRequestLog(log hclog.Logger, window time.Duration, most int) *requestLog {
	return &requestLog{log: log, window: window, most: most, windows: make(map[string]*logBurst)}
}

// logBurst is what was logged with one text in a window.
type logBurst struct {
	level    hclog.Level
	subjects map[any]struct{}
	left     int // lines that may still be logged
	skipped  int
}

// write logs a line, unless the window has one with that text and subject already, or enough with that text. The
// subject is the key of a session's lock, say; nil: each line is another's.
func (l *requestLog) write(level hclog.Level, text string, subject any, pairs func() []any) {
	if level < l.log.GetLevel() {
		return
	}
	if level < hclog.Info || l.allow(level, text, subject) {
		l.log.Log(level, text, pairs()...)
	}
}

func (l *requestLog) allow(level hclog.Level, text string, subject any) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.windows[text]
	if b == nil {
		b = &logBurst{level: level, subjects: make(map[any]struct{}), left: l.most}
		l.windows[text] = b
		time.AfterFunc(l.window, func() { l.end(text) })
	}
	if subject != nil {
		if _, again := b.subjects[subject]; again {
			b.skipped++
			return false
		}
	}
	if b.left == 0 {
		b.skipped++
		return false
	}
	b.left--
	if subject != nil {
		b.subjects[subject] = struct{}{}
	}
	return true
}

// flush ends all windows.
func (l *requestLog) flush() {
	l.mu.Lock()
	texts := slices.Collect(maps.Keys(l.windows))
	l.mu.Unlock()
	for _, text := range texts {
		l.end(text)
	}
}

// end ends a window, and logs how many lines were left out.
func (l *requestLog) end(text string) {
	l.mu.Lock()
	b := l.windows[text]
	delete(l.windows, text)
	l.mu.Unlock()
	if b != nil && b.skipped > 0 {
		l.log.Log(b.level, text+" (further ones, not logged individually)",
			"requests", b.skipped, "within_ms", l.window.Milliseconds())
	}
}
