package gate

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Limits of what requests can write to the log: one visitor must not fill it, nor keep others' lines out of it.
const (
	logWindow = time.Second
	logLines  = 10 // of one text in a window, each of another session
)

// requestLog logs what became of requests, with few lines in a window of time for each text. What it leaves out is counted in
// one more line when the window is over. The zero requestLog must get its log first.
type requestLog struct {
	log hclog.Logger

	mu      sync.Mutex
	windows map[string]*logBurst // by text, of those logged a moment ago
}

// logBurst is what has been logged of one text in a window.
type logBurst struct {
	level    hclog.Level
	sessions map[sessionlock.Key]struct{}
	left     int // lines without a session that are still logged
	skipped  int
}

// write logs a line, unless there was one of that text and session in the window, or enough of others.
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

// end ends a window, and logs how much it has left out.
func (l *requestLog) end(text string) {
	l.mu.Lock()
	b := l.windows[text]
	delete(l.windows, text)
	l.mu.Unlock()
	if b != nil && b.skipped > 0 {
		l.log.Log(b.level, text+" (more of them, not logged one by one)", "requests", b.skipped, "within_ms", logWindow.Milliseconds())
	}
}
