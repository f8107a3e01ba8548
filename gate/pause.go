package gate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// pause is a time in which requests that PHP-FPM has not got yet wait for it, because an operator wants it idle. It is
// the gate's, so that a reload does not end it.
type pause struct {
	log  hclog.Logger
	ends atomic.Int64 // until, in Unix nanoseconds, for requests; zero: there is none

	mu     sync.Mutex
	since  time.Time // zero: there is none
	until  time.Time
	limit  *time.Timer           // ends it
	note   func(until time.Time) // Options.Paused of the setup in force
	setups []*setup              // the one in force, and those before it that requests may still use
}

// PauseState describes whether a gate is paused, and what it does.
type PauseState struct {
	Since, Until time.Time // zero: it is not paused
	Waiting      int       // requests that wait for a connection to PHP-FPM
	Running      int       // requests in PHP-FPM, and scripts that are followed after their response
}

// Paused reports whether the gate is paused.
func (s *PauseState) Paused() bool { return !s.Since.IsZero() }

// begin begins the pause, or sets a new limit for it.
func (p *pause) begin(limit time.Duration) {
	p.mu.Lock()
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	} else {
		p.limit.Stop()
	}
	until := now.Add(limit)
	p.until = until
	p.ends.Store(until.UnixNano())
	p.limit = time.AfterFunc(limit, func() { p.end(until) })
	for _, s := range p.used() {
		s.pool.Pause()
	}
	note := p.note
	p.mu.Unlock()
	p.log.Info("paused; new requests wait", "limit_ms", limit.Milliseconds())
	note(until)
}

// end ends the pause, or only the one whose time ends at limit if that is not zero. It reports whether there was one.
func (p *pause) end(limit time.Time) bool {
	p.mu.Lock()
	if p.since.IsZero() || !limit.IsZero() && !limit.Equal(p.until) {
		p.mu.Unlock()
		return false
	}
	paused := time.Since(p.since)
	p.limit.Stop()
	p.since, p.until = time.Time{}, time.Time{}
	p.ends.Store(0)
	waiting := 0
	for _, s := range p.used() {
		waiting += s.pool.Stats().Queued
		s.pool.Resume()
	}
	note := p.note
	p.mu.Unlock()
	pairs := []any{"paused_ms", paused.Milliseconds(), "requests", waiting}
	if limit.IsZero() {
		p.log.Info("resumed", pairs...)
	} else {
		p.log.Warn("resumed because the pause has reached its limit", pairs...)
	}
	note(time.Time{})
	return true
}

func (p *pause) state() PauseState {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := PauseState{Since: p.since, Until: p.until}
	for _, s := range p.used() {
		stats := s.pool.Stats()
		state.Waiting += stats.Queued
		state.Running += stats.Running
	}
	return state
}

// adopt makes the pause that of one more setup.
func (p *pause) adopt(s *setup) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setups = append(p.used(), s)
	if p.note = s.Paused; p.note == nil {
		p.note = func(time.Time) {}
	}
	if !p.since.IsZero() {
		s.pool.Pause()
	}
}

// used returns the setups that are in use. The caller must hold the mutex.
func (p *pause) used() []*setup {
	var used []*setup
	for _, s := range p.setups {
		select {
		case <-s.idle: // its last request has ended
		default:
			used = append(used, s)
		}
	}
	p.setups = used
	return used
}

// left returns how much longer the pause may last, at most most; zero if there is none.
func (p *pause) left(most time.Duration) time.Duration {
	ends := p.ends.Load()
	if ends == 0 {
		return 0
	}
	return min(max(time.Until(time.Unix(0, ends)), 0), most)
}
