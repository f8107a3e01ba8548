package kv

import (
	"sync"
	"time"
)

// ServerStats are the figures of one server. The counters begin with the server. A new counter is a field here, a Count
// where it happens, and a line in admin/metrics.go.
type ServerStats struct {
	Server string // its address
	Up     bool
	Since  time.Time // Up has its value since; zero: it was never reached
	Grace  bool      // it grants no new leases yet
	Err    error     // the last failure, which may be over

	Disagree int // other hosts' settings that differ from ours

	RoundTrips  uint64 // those of the watcher aside
	Looks       uint64 // at locks that are waited for; many of them in one round trip
	Failures    uint64 // round trips without an answer
	Timeouts    uint64 // of the failures
	NotSent     uint64 // requests not sent: the server was marked down, or too many were in flight
	LostAnswers uint64 // of writes whose outcome had to be looked up
	Forgot      uint64 // times that all items may have been lost
	Regained    uint64 // leases that were gone and were added again
}

// Figures keeps the counters of one server. The zero value is ready for use, by many goroutines.
type Figures struct {
	mu    sync.Mutex
	stats ServerStats
}

// Count has change count, under a mutex: it must not block.
func (f *Figures) Count(change func(*ServerStats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

// Counted returns the counters as they are now.
func (f *Figures) Counted() ServerStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}
