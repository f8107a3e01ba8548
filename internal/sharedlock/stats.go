package sharedlock

import (
	"errors"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// Stats are the figures of a Store.
type Stats struct {
	Leases  int    // held now
	Waits   int    // locks that some manager waits for
	Lost    uint64 // leases that were another gate's when they were renewed, or were missing
	Servers []ServerStats
}

// ServerStats are the figures of one server.
type ServerStats = kv.ServerStats

// Stats returns the figures as they are now.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	stats := Stats{Leases: len(s.leases), Lost: s.lost.Load()}
	s.mu.Unlock()
	stats.Waits = s.waits.count()
	for _, m := range s.members {
		stats.Servers = append(stats.Servers, m.Stats())
	}
	return stats
}

// Health is nil if all locks can be had; else it says which servers are down that they need. With a quorum that is
// only so if less than most of them are up.
func (s *Store) Health() error {
	var down []error
	for _, m := range s.members {
		if err := m.State().Down; err != nil {
			down = append(down, err)
		}
	}
	if s.options.Quorum && len(s.members)-len(down) >= majority(len(s.members)) {
		return nil
	}
	return errors.Join(down...)
}
