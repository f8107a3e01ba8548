package admin

import (
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fpm-gate/fpm-gate/gate"
)

// metrics are the figures for Prometheus. docs/METRICS.md names them all, and a test holds it to that. What the gates
// count anyway is read when it is asked for; only the histograms are filled in the way of the requests.
type metrics struct {
	admin      *Admin
	registry   *prometheus.Registry
	wait, hold *prometheus.HistogramVec
}

// lockTimes are the classic buckets, from a page that is nearly nothing to what nobody waits for. Prometheus servers
// that scrape native histograms get finer ones.
var lockTimes = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60}

const (
	bucketFactor = 1.1 // of native histograms: one bucket is that much wider than the one before
	maxBuckets   = 100
)

func newMetrics(a *Admin) *metrics {
	m := &metrics{admin: a, registry: prometheus.NewRegistry()}
	m.wait = histogram("fpm_gate_lock_wait_seconds", "Time that requests waited for their session's lock, 0 if nobody was in the way.")
	m.hold = histogram("fpm_gate_lock_hold_seconds", "Time that scripts held their session's lock.")
	m.registry.MustRegister(m, m.wait, m.hold, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func histogram(name, help string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: lockTimes,
		NativeHistogramBucketFactor: bucketFactor, NativeHistogramMaxBucketNumber: maxBuckets,
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"gate", "route", "outcome"})
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 8})
}

// figure is one of the metrics that are read when they are asked for.
type figure struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

func counter(name, help string, labels ...string) figure {
	return figure{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

func gauge(name, help string, labels ...string) figure {
	return figure{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

var (
	buildInfo = gauge("fpm_gate_build_info", "Always 1; the labels say which program it is.", "version", "goversion")
	reloadOK  = gauge("fpm_gate_config_last_reload_successful", "Whether the last reload of the config was taken: 1, or 0 if the one before is still in force.")
	reloadAt  = gauge("fpm_gate_config_last_reload_success_timestamp_seconds", "When the config was taken that is in force.")

	logLost = counter("fpm_gate_log_lines_lost_total", "Lines of the log that could not be written to stderr.")

	requests     = counter("fpm_gate_requests_total", "Requests that have ended.", "gate", "route", "outcome")
	started      = counter("fpm_gate_requests_started_total", "Requests whose head was read.", "gate")
	conns        = gauge("fpm_gate_conns", "Connections from web servers.", "gate")
	refused      = counter("fpm_gate_conns_refused_total", "Connections on which no request could be read.", "gate")
	locksHeld    = gauge("fpm_gate_locks", "Locks that are held.", "gate")
	waiters      = gauge("fpm_gate_lock_waiters", "Requests that wait for a lock.", "gate")
	oldestHold   = gauge("fpm_gate_lock_oldest_hold_seconds", "Age of the lock that has been held longest.", "gate")
	oldestWait   = gauge("fpm_gate_lock_oldest_wait_seconds", "Age of the wait that has lasted longest.", "gate")
	locksExpired = counter("fpm_gate_locks_expired_total", "Locks that were held for longer than their expiry.", "gate")
	locksLost    = counter("fpm_gate_locks_lost_total", "Locks whose lease was lost in the store.", "gate")
	locksBroken  = counter("fpm_gate_locks_broken_total", "Locks that an operator has broken.", "gate")
	locksLocal   = counter("fpm_gate_locks_local_total", "Locks that were held within this process only, as their store failed.", "gate")
	turnsGiven   = counter("fpm_gate_turns_given_away_total", "Turns that scripts gave away because they had not opened their session in time.", "gate")
	misfit       = gauge("fpm_gate_session_misfit", "Whether the session block does not fit what PHP and the application do: 1 or 0. The log says what to do.", "gate", "kind")

	upstreamConns    = gauge("fpm_gate_upstream_connections", "Connections to PHP-FPM.", "gate", "address", "state")
	upstreamUp       = gauge("fpm_gate_upstream_up", "Whether PHP-FPM could be reached when it was last tried, and answers its ping if it is asked for one and has no requests to work on.", "gate", "address")
	upstreamBusy     = gauge("fpm_gate_upstream_busy", "Whether its ping waits for a worker while requests of the gate are there.", "gate", "address")
	upstreamQueue    = gauge("fpm_gate_upstream_queue", "Requests that wait for one of max_connections.", "gate")
	upstreamDials    = counter("fpm_gate_upstream_dials_total", "Connections to PHP-FPM that were tried.", "gate")
	upstreamFailures = counter("fpm_gate_upstream_dial_errors_total", "Connections to PHP-FPM that failed.", "gate")
	upstreamReuses   = counter("fpm_gate_upstream_reuses_total", "Requests that went over a connection that was there.", "gate")
	upstreamRetries  = counter("fpm_gate_upstream_retries_total", "Requests that were sent again because PHP-FPM had closed their connection.", "gate")

	fpmAccepted    = counter("fpm_gate_phpfpm_accepted_connections_total", "Connections that PHP-FPM has accepted.", "gate", "address", "pool")
	fpmQueue       = gauge("fpm_gate_phpfpm_listen_queue", "Connections in the backlog of PHP-FPM.", "gate", "address", "pool")
	fpmMaxQueue    = gauge("fpm_gate_phpfpm_listen_queue_max", "Most connections that were in the backlog at once.", "gate", "address", "pool")
	fpmProcesses   = gauge("fpm_gate_phpfpm_processes", "Workers of PHP-FPM, by what it says that they do.", "gate", "address", "pool", "state")
	fpmMaxActive   = gauge("fpm_gate_phpfpm_active_processes_max", "Most workers that were active at once.", "gate", "address", "pool")
	fpmMaxChildren = counter("fpm_gate_phpfpm_max_children_reached_total", "Times that PHP-FPM wanted more workers than pm.max_children.", "gate", "address", "pool")
	fpmSlow        = counter("fpm_gate_phpfpm_slow_requests_total", "Requests that took longer than request_slowlog_timeout.", "gate", "address", "pool")

	storeLeases   = gauge("fpm_gate_store_leases", "Leases that this process has in the store.")
	storeWaits    = gauge("fpm_gate_store_waits", "Locks that this process waits for while another host holds them.")
	storeLost     = counter("fpm_gate_store_leases_lost_total", "Leases found taken or missing on renewal, or missing on release.")
	storeUp       = gauge("fpm_gate_store_up", "Whether the server is up: 0 while it is marked down.", "server")
	storeGrace    = gauge("fpm_gate_store_grace", "Whether the server grants no new leases yet, because it has lost the old ones.", "server")
	storeAsked    = counter("fpm_gate_store_round_trips_total", "Round trips to the server.", "server")
	storePolled   = counter("fpm_gate_store_polls_total", "Looks at locks that are waited for, many of them in one round trip; max_poll_rate bounds them.", "server")
	storeDisagree = gauge("fpm_gate_store_disagreements", "Settings of other hosts that differ from this one's: their locks do not exclude each other.", "server")
	storeFailed   = counter("fpm_gate_store_errors_total", "Round trips without an answer.", "server")
	storeTimeouts = counter("fpm_gate_store_timeouts_total", "Round trips without an answer in time; they are errors, too.", "server")
	storeUnasked  = counter("fpm_gate_store_unasked_total", "Requests not sent because the server was marked down or too many were in flight.", "server")
	storeRepeated = counter("fpm_gate_store_repeated_total", "Writes whose answer was lost, so that their outcome was looked up.", "server")
	storeForgot   = counter("fpm_gate_store_forgot_total", "Times that the server may have lost all leases: restarts and flushes.", "server")
	storeRegained = counter("fpm_gate_store_leases_regained_total", "Leases that were missing on the server and were restored.", "server")

	figures = []figure{
		buildInfo, reloadOK, reloadAt, logLost,
		requests, started, conns, refused, locksHeld, waiters, oldestHold, oldestWait,
		locksExpired, locksLost, locksBroken, locksLocal, turnsGiven, misfit,
		upstreamConns, upstreamUp, upstreamBusy, upstreamQueue, upstreamDials, upstreamFailures, upstreamReuses, upstreamRetries,
		fpmAccepted, fpmQueue, fpmMaxQueue, fpmProcesses, fpmMaxActive, fpmMaxChildren, fpmSlow,
		storeLeases, storeWaits, storeLost, storeUp, storeGrace, storeDisagree, storeAsked, storePolled, storeFailed, storeTimeouts, storeUnasked,
		storeRepeated, storeForgot, storeRegained,
	}
)

// Describe names the figures.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, f := range figures {
		to <- f.Desc
	}
}

// sink is where figures go.
type sink chan<- prometheus.Metric

func (to sink) send(f figure, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(f.Desc, f.kind, value, labels...)
}

// Collect reads the figures.
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	to, served := sink(c), m.admin.options.Served()
	to.send(buildInfo, 1, m.admin.options.Version, runtime.Version())
	to.send(reloadOK, number(!served.ReloadFailed))
	to.send(reloadAt, float64(served.Reloaded.UnixMilli())/1000)
	to.send(logLost, float64(served.LogLost))
	held := lockFigures(served.Locks)
	for _, g := range served.Gates {
		to.gate(g)
		to.locks(g.Name, held[g.Name])
	}
	for _, l := range served.Locks {
		if l.Store != nil {
			to.store(l.Store.Figures())
		}
	}
}

func (to sink) gate(g Gate) {
	s := g.Stats()
	for _, route := range s.Routes {
		for end, n := range route.Ends {
			to.send(requests, float64(n), g.Name, route.Name, gate.End(end).String())
		}
	}
	to.send(started, float64(s.Requests), g.Name)
	to.send(conns, float64(s.Conns), g.Name)
	to.send(refused, float64(s.Refused), g.Name)
	to.send(locksExpired, float64(s.Expired), g.Name)
	to.send(locksLost, float64(s.Lost), g.Name)
	to.send(locksBroken, float64(s.Ended), g.Name)
	to.send(locksLocal, float64(s.Local), g.Name)
	to.send(turnsGiven, float64(s.GivenAway), g.Name)
	for _, kind := range gate.MisfitKinds() {
		is := slices.ContainsFunc(g.Misfits(), func(m gate.Misfit) bool { return m.Kind == kind })
		to.send(misfit, number(is), g.Name, kind)
	}
	to.send(upstreamQueue, float64(s.Pool.Queued), g.Name)
	to.send(upstreamDials, float64(s.Pool.Dials), g.Name)
	to.send(upstreamFailures, float64(s.Pool.DialErrors), g.Name)
	to.send(upstreamReuses, float64(s.Pool.Reuses), g.Name)
	to.send(upstreamRetries, float64(s.Pool.Retries), g.Name)
	for _, u := range g.Upstreams() {
		to.upstream(g.Name, u)
	}
}

func (to sink) upstream(name string, u gate.UpstreamStats) {
	address := u.Addr.String()
	to.send(upstreamConns, float64(u.Busy), name, address, "busy")
	to.send(upstreamConns, float64(u.Idle), name, address, "idle")
	to.send(upstreamUp, number(!u.Down && !u.Failing), name, address)
	to.send(upstreamBusy, number(u.Saturated), name, address)
	s := u.Status
	if s == nil {
		return
	}
	to.send(fpmAccepted, float64(s.AcceptedConn), name, address, s.Pool)
	to.send(fpmQueue, float64(s.ListenQueue), name, address, s.Pool)
	to.send(fpmMaxQueue, float64(s.MaxListenQueue), name, address, s.Pool)
	to.send(fpmProcesses, float64(s.ActiveProcesses), name, address, s.Pool, "active")
	to.send(fpmProcesses, float64(s.IdleProcesses), name, address, s.Pool, "idle")
	to.send(fpmProcesses, float64(s.KeptProcesses), name, address, s.Pool, "kept")
	to.send(fpmMaxActive, float64(s.MaxActiveProcesses), name, address, s.Pool)
	to.send(fpmMaxChildren, float64(s.MaxChildrenReached), name, address, s.Pool)
	to.send(fpmSlow, float64(s.SlowRequests), name, address, s.Pool)
}

// held is what is held and waited for by the requests of one gate.
type held struct {
	locks, waiters         int
	oldestHold, oldestWait time.Duration
}

// lockFigures counts the locks by the gates of their holders, and the waiters by their own.
func lockFigures(all []Locks) map[string]held {
	sums := make(map[string]held)
	now := time.Now()
	for _, locks := range all {
		for _, s := range locks.Snapshot() {
			if s.Held {
				h := sums[s.Holder.Gate]
				h.locks++
				h.oldestHold = max(h.oldestHold, now.Sub(s.Since))
				sums[s.Holder.Gate] = h
			}
			for _, w := range s.Waiters {
				h := sums[w.Gate]
				h.waiters++
				h.oldestWait = max(h.oldestWait, now.Sub(w.Since))
				sums[w.Gate] = h
			}
		}
	}
	return sums
}

func (to sink) locks(name string, h held) {
	to.send(locksHeld, float64(h.locks), name)
	to.send(waiters, float64(h.waiters), name)
	to.send(oldestHold, h.oldestHold.Seconds(), name)
	to.send(oldestWait, h.oldestWait.Seconds(), name)
}

func (to sink) store(s StoreFigures) {
	to.send(storeLeases, float64(s.Leases))
	to.send(storeWaits, float64(s.Waits))
	to.send(storeLost, float64(s.Lost))
	for _, v := range s.Servers {
		to.send(storeUp, number(v.Up), v.Server)
		to.send(storeGrace, number(v.Grace), v.Server)
		to.send(storeDisagree, float64(v.Disagree), v.Server)
		to.send(storeAsked, float64(v.Questions), v.Server)
		to.send(storePolled, float64(v.Polled), v.Server)
		to.send(storeFailed, float64(v.Failures), v.Server)
		to.send(storeTimeouts, float64(v.Timeouts), v.Server)
		to.send(storeUnasked, float64(v.Unasked), v.Server)
		to.send(storeRepeated, float64(v.LostAnswers), v.Server)
		to.send(storeForgot, float64(v.Forgot), v.Server)
		to.send(storeRegained, float64(v.Regained), v.Server)
	}
}

// number is 1 for yes.
func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
