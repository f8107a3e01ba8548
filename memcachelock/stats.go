package memcachelock

import (
	"errors"
	"sync/atomic"
	"time"
)

// counts are what a server's figures are made of.
type counts struct {
	questions, polled, failures, timeouts, unasked, lostAnswers, forgot, regained atomic.Uint64
}

// Stats are the figures of a Store.
type Stats struct {
	Leases  int    // held now
	Waits   int    // locks that some manager waits for
	Lost    uint64 // leases that were another gate's when they were renewed, or were missing
	Servers []ServerStats
}

// ServerStats are the figures of one server. The counters begin with the Store.
type ServerStats struct {
	Server Addr
	Up     bool
	Since  time.Time // Up has its value since; zero: it was never reached
	Grace  bool      // it grants no new leases yet
	Err    error     // the last failure, which may be over

	Disagree int // other hosts' settings that differ from ours

	Questions   uint64 // round trips, those of the watcher aside
	Polled      uint64 // looks at locks that are waited for; many of them in one round trip
	Failures    uint64 // of them, without an answer
	Timeouts    uint64 // of the failures
	Unasked     uint64 // requests not sent: the server was marked down, or too many were in flight
	LostAnswers uint64 // whose outcome had to be looked up
	Forgot      uint64 // times that all leases may have been lost
	Regained    uint64 // leases that were gone and were added again
}

// Stats returns the figures as they are now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	stats := Stats{Leases: len(s.leases), Waits: len(s.waits), Lost: s.counts.lost.Load()}
	s.mu.Unlock()
	for _, m := range s.members {
		server := m.stats()
		server.Disagree = m.fleet.differences()
		stats.Servers = append(stats.Servers, server)
	}
	return stats
}

func (v *server) stats() ServerStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	return ServerStats{
		Server:      v.addr,
		Up:          v.down == nil && !v.since.IsZero(),
		Since:       v.since,
		Grace:       time.Now().Before(v.epochs.grace),
		Err:         v.err,
		Questions:   v.counts.questions.Load(),
		Polled:      v.counts.polled.Load(),
		Failures:    v.counts.failures.Load(),
		Timeouts:    v.counts.timeouts.Load(),
		Unasked:     v.counts.unasked.Load(),
		LostAnswers: v.counts.lostAnswers.Load(),
		Forgot:      v.counts.forgot.Load(),
		Regained:    v.counts.regained.Load(),
	}
}

// Health is nil if all locks can be had; else it says which servers are down that they need. With a quorum that is
// only so if less than most of them are up.
func (s *Store) Health() error {
	var down []error
	for _, v := range s.members {
		if err := v.downErr(); err != nil {
			down = append(down, v.named(err))
		}
	}
	if s.options.Quorum && len(s.members)-len(down) >= majority(len(s.members)) {
		return nil
	}
	return errors.Join(down...)
}
