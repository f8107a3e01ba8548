package gate

import (
	"sync"
	"sync/atomic"
	"time"
)

// pause is a time in which requests that PHP-FPM has not got yet wait for it, because an operator wants it idle. It is
// the gate's, so that a reload does not end it.
type pause struct {
	mu     sync.Mutex
	since  time.Time // zero: there is none
	until  time.Time
	end    atomic.Int64 // until, in Unix nanoseconds, for requests; zero: there is none
	limit  *time.Timer  // ends it
	setups []*setup     // the one in force, and those before it that requests may still use
}

// PauseState describes whether a gate is paused, and what it does.
type PauseState struct {
	Since, Until time.Time // zero: it is not paused
	Waiting      int       // requests that wait for a connection to PHP-FPM
	Running      int       // requests in PHP-FPM, and scripts that are followed after their response
}

// Paused reports whether the gate is paused.
func (s *PauseState) Paused() bool { return !s.Since.IsZero() }

// Pause has all requests that PHP-FPM has not got yet wait, until Resume or for limit. A second call sets a new limit.
func (g *Gate) Pause(limit time.Duration) {
	p := &g.pause
	p.mu.Lock()
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	} else {
		p.limit.Stop()
	}
	p.until = now.Add(limit)
	p.end.Store(p.until.UnixNano())
	until := p.until
	p.limit = time.AfterFunc(limit, func() { g.resume(until) })
	for _, s := range p.used() {
		s.pool.Pause()
	}
	p.mu.Unlock()
	g.log.Info("paused; new requests wait", "limit_ms", limit.Milliseconds())
	g.notePause(until)
}

// Resume ends a pause. It reports whether there was one.
func (g *Gate) Resume() bool { return g.resume(time.Time{}) }

// resume ends the pause, or the one whose time ends at limit.
func (g *Gate) resume(limit time.Time) bool {
	p := &g.pause
	p.mu.Lock()
	if p.since.IsZero() || !limit.IsZero() && !limit.Equal(p.until) {
		p.mu.Unlock()
		return false
	}
	paused := time.Since(p.since)
	p.limit.Stop()
	p.since, p.until = time.Time{}, time.Time{}
	p.end.Store(0)
	waiting := 0
	for _, s := range p.used() {
		waiting += s.pool.Stats().Queued
		s.pool.Resume()
	}
	p.mu.Unlock()
	pairs := []any{"paused_ms", paused.Milliseconds(), "requests", waiting}
	if limit.IsZero() {
		g.log.Info("resumed", pairs...)
	} else {
		g.log.Warn("resumed because the pause has reached its limit", pairs...)
	}
	g.notePause(time.Time{})
	return true
}

func (g *Gate) notePause(until time.Time) {
	if paused := g.setup.Load().Paused; paused != nil {
		paused(until)
	}
}

// PauseState returns the current state.
func (g *Gate) PauseState() PauseState {
	p := &g.pause
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
	end := p.end.Load()
	if end == 0 {
		return 0
	}
	return min(max(time.Until(time.Unix(0, end)), 0), most)
}
