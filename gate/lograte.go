package gate

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Limits of what requests can log: one visitor must neither fill the log nor keep the lines of others out of it.
const (
	logWindow = time.Second
	logLines  = 10 // per text and window, each of another session
)

// requestLog logs how requests ended, with a few lines per text in a window of time. At the end of the window it logs
// the number of lines left out. log must be set.
type requestLog struct {
	log hclog.Logger

	mu      sync.Mutex
	windows map[string]*logBurst // by text; the current windows
}

// logBurst is what was logged with one text in a window.
type logBurst struct {
	level    hclog.Level
	sessions map[sessionlock.Key]struct{}
	left     int // lines that may still be logged
	skipped  int
}

// write logs a line, unless the window has one with that text and session already, or enough with that text.
func (l *requestLog) write(level hclog.Level, text string, session *sessionlock.Key, pairs func() []any) {
	if level < l.log.GetLevel() {
		return
	}
	if level < hclog.Info || l.allow(level, text, session) {
		l.log.Log(level, text, pairs()...)
	}
}

func (l *requestLog) allow(level hclog.Level, text string, session *sessionlock.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.windows[text]
	if b == nil {
		b = &logBurst{level: level, sessions: make(map[sessionlock.Key]struct{}), left: logLines}
		if l.windows == nil {
			l.windows = make(map[string]*logBurst)
		}
		l.windows[text] = b
		time.AfterFunc(logWindow, func() { l.end(text) })
	}
	if session != nil {
		if _, again := b.sessions[*session]; again {
			b.skipped++
			return false
		}
	}
	if b.left == 0 {
		b.skipped++
		return false
	}
	b.left--
	if session != nil {
		b.sessions[*session] = struct{}{}
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
			"requests", b.skipped, "within_ms", logWindow.Milliseconds())
	}
}
