package gate

import (
	"sync/atomic"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// counter counts events, from many goroutines.
type counter = atomic.Uint64

// counters are what a gate has seen since it was made.
type counters struct {
	requests, none, acquired, passed, observed counter
	rejected, expired, lost, aborted           counter
	abandoned, hungUp, broken                  counter
	upstreamErrors, malformed                  counter
}

// Stats are what a gate has seen since it was made, and what it sees now.
type Stats struct {
	Conns     int    // from web servers, now
	Requests  uint64 // whose head was read
	None      uint64 // that had no session, or no need of its lock
	Acquired  uint64 // that got the lock, or waited for it in order to read
	Passed    uint64 // that went on without the lock after max wait
	Observed  uint64 // that would have waited
	Rejected  uint64 // that were sent away instead of served
	Expired   uint64 // locks that were held for too long
	Lost      uint64 // locks that were lost in the store, or broken by an operator
	Aborted   uint64 // requests that were ended because their lock had expired
	Abandoned uint64 // scripts that ran on for too long after their web server had hung up
	HungUp    uint64 // requests whose web server hung up before their end
	Broken    uint64 // responses that were cut short
	Upstream  uint64 // requests that PHP-FPM did not answer
	Malformed uint64 // conns and requests that did not speak FastCGI

	Pool fcgi.PoolStats
}

// Stats returns what the gate has seen so far.
func (g *Gate) Stats() Stats {
	c := &g.counters
	return Stats{
		Conns: g.Conns(), Requests: c.requests.Load(), None: c.none.Load(), Acquired: c.acquired.Load(),
		Passed: c.passed.Load(), Observed: c.observed.Load(), Rejected: c.rejected.Load(),
		Expired: c.expired.Load(), Lost: c.lost.Load(), Aborted: c.aborted.Load(),
		Abandoned: c.abandoned.Load(), HungUp: c.hungUp.Load(), Broken: c.broken.Load(),
		Upstream: c.upstreamErrors.Load(), Malformed: c.malformed.Load(),
		Pool: g.setup.Load().pool.Stats(),
	}
}
