package gate

import (
	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpfpm"
)

// Stats count what a gate has seen since it was created: requests, unless a comment names something else.
type Stats struct {
	Conns        int    // open connections from web servers
	Requests     uint64 // whose head was read
	None         uint64 // that had no session, or needed no lock
	Acquired     uint64 // that got the lock, or waited for it to read
	Local        uint64 // that held the lock within this process only, because its store failed
	Passed       uint64 // that went on without the lock: after max_wait, or because its store failed
	Observed     uint64 // that would have waited
	Rejected     uint64 // that were rejected
	Expired      uint64 // locks that were held for too long
	Lost         uint64 // locks that were lost in the store
	LocksBroken  uint64 // locks that an operator has broken
	Unread       uint64 // whose session cookie contained no id, by its format or pattern
	Reopened     uint64 // scripts that opened their session again after they had closed it
	Mismatched   uint64 // scripts that used another session than the one whose lock they held
	Interrupted  uint64 // scripts that the gate has ended by PHP's time limit
	Terminated   uint64 // scripts that it has ended with their worker
	Unterminated uint64 // scripts that it could not end
	GivenAway    uint64 // turns that scripts gave away because they had not opened their session in time
	Aborted      uint64 // that were aborted because their lock had expired
	Abandoned    uint64 // scripts that ran for too long after their web server had hung up
	HungUp       uint64 // whose web server hung up before their end
	Truncated    uint64 // responses that were cut short
	Upstream     uint64 // that PHP-FPM did not answer
	Malformed    uint64 // conns and requests that did not speak FastCGI
	ConnsRefused uint64 // those of Malformed that are conns on which no request was read

	// Active are the workers of PHP-FPM that work for the gate now: on a request, or on a script that goes on after its
	// response. One with an idle connection is not among them; requests in PHP-FPM's backlog are.
	Active int
	Total  int // max_connections, the workers that the gate may have; 0: not known

	Routes []RouteStats // by their names
	Pool   fcgi.PoolStats
}

// Stats returns the current counts.
func (g *Gate) Stats() Stats {
	c := &g.counters
	s := Stats{
		Conns: g.Conns(), Requests: c.requests.Load(), None: c.none.Load(), Acquired: c.acquired.Load(),
		Local: c.local.Load(), Passed: c.passed.Load(), Observed: c.observed.Load(),
		Expired: c.expired.Load(), Lost: c.lost.Load(), LocksBroken: c.locksBroken.Load(), GivenAway: c.givenAway.Load(),
		Reopened: c.reopened.Load(), Mismatched: c.mismatched.Load(),
		Interrupted: c.interrupted.Load(), Terminated: c.terminated.Load(), Unterminated: c.unterminated.Load(),
		Unread: c.unread.Load(), ConnsRefused: c.connsRefused.Load(),
		Routes: c.routeStats(), Pool: g.setup.Load().pool.Stats(),
	}
	s.Active, s.Total = s.Pool.Running-s.Pool.Dialling, g.setup.Load().Upstream.MaxConnections
	for _, r := range s.Routes {
		s.Rejected += r.Outcomes[OutcomeMaxWait] + r.Outcomes[OutcomeMaxWaiters] + r.Outcomes[OutcomeShutdown] +
			r.Outcomes[OutcomeStoreFailed]
		s.Aborted += r.Outcomes[OutcomeExpired]
		s.Abandoned += r.Outcomes[OutcomeAbandoned]
		s.HungUp += r.Outcomes[OutcomeHungUp]
		s.Truncated += r.Outcomes[OutcomeBroken]
		s.Upstream += r.Outcomes[OutcomeUpstreamBusy] + r.Outcomes[OutcomeUpstreamFailed]
		s.Malformed += r.Outcomes[OutcomeFailed]
	}
	s.Malformed += s.ConnsRefused
	return s
}

// Upstreams describes the PHP-FPM at each address of the gate.
func (g *Gate) Upstreams() []UpstreamStats {
	s := g.setup.Load()
	pages := s.probe.Statuses()
	var all []UpstreamStats
	for _, a := range s.pool.Addrs() {
		u := UpstreamStats{AddrStats: a}
		if page, ok := pages[a.Addr]; ok {
			u.Status = &page
		}
		if s.Workers != nil {
			u.Unseen = s.Workers.unseen(a.Addr)
		}
		all = append(all, u)
	}
	return all
}

// UpstreamStats describe one address of PHP-FPM.
type UpstreamStats struct {
	fcgi.AddrStats
	Status *phpfpm.Status // its last status page; nil: not configured, or none so far
	// Unseen is why its workers cannot be looked at; nil: they can, need not be, are another host's, or it is not known
	// yet.
	Unseen error
}

// CannotTerminate returns why the gate cannot end scripts although on_expiry or on_abandon says so; nil if it can, or
// need not.
func (g *Gate) CannotTerminate() error { return g.setup.Load().power.check() }

// Misfits returns what currently does not fit between config and application.
func (g *Gate) Misfits() []Misfit { return g.setup.Load().misfits.all() }
