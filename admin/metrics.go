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
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
)

// metrics are the metrics for Prometheus. docs/METRICS.md lists them all, and a test compares the two. Each metric that
// a scrape reads is declared once, below, with its help and with where its value comes from. Only the histograms are
// filled on the request path.
type metrics struct {
	version    string
	served     func() Served
	registry   *prometheus.Registry
	wait, hold *prometheus.HistogramVec // of locks
	queue, php *prometheus.HistogramVec
}

// times are the classic buckets, in seconds: from a page that takes almost no time to a wait that no visitor sits
// through. Prometheus servers that scrape native histograms get finer ones.
var times = []float64{.001, .003, .01, .03, .1, .3, 1, 3, 10, 30, 60}

const (
	bucketFactor = 1.1 // of native histograms: the ratio of the bounds of a bucket
	maxBuckets   = 100
)

// The collectors of Go and the process come with client_golang.
func newMetrics(version string, served func() Served) *metrics {
	m := &metrics{version: version, served: served, registry: prometheus.NewRegistry()}
	m.wait = histogram("fpm_gate_lock_wait_seconds",
		"Time that requests waited for their session's lock, 0 if it was free.")
	m.hold = histogram("fpm_gate_lock_hold_seconds", "Time that scripts held their session's lock.")
	m.queue = histogram("fpm_gate_upstream_queue_seconds",
		"Time that requests waited for a connection to PHP-FPM: for one of max_connections, and to connect.")
	m.php = histogram("fpm_gate_php_seconds",
		"Time from the moment when PHP-FPM had all of a request to the end of its response.")
	m.registry.MustRegister(m, m.wait, m.hold, m.queue, m.php, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// histogram makes one that has a series for each route and outcome, from the first request with that outcome on.
func histogram(name, help string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: times,
		NativeHistogramBucketFactor: bucketFactor, NativeHistogramMaxBucketNumber: maxBuckets,
		// When there would be more buckets, client_golang starts the histogram anew, but at most once in this time; in
		// between it merges buckets.
		NativeHistogramMinResetDuration: time.Hour,
	}, []string{"gate", "route", "outcome"})
}

// A scrape beyond MaxRequestsInFlight gets a 503: each looks at every lock of the process.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 8})
}

// The names follow Prometheus's rules: base units, _total for counters. The two about reloads are named as Prometheus
// names its own, so that alerts for the one fit the other.
var programMetrics = newFamily(
	gauges("fpm_gate_build_info", "Always 1; the labels name the program's version and Go's.",
		func(p program, emit emit) { emit(1, p.version, runtime.Version()) }, "version", "goversion"),
	flag("fpm_gate_config_last_reload_successful",
		"Whether the last reload of the config succeeded: 1, or 0 while the previous config stays active.",
		func(p program) bool { return !p.ReloadFailed }),
	gauge("fpm_gate_config_last_reload_success_timestamp_seconds", "Time of the last successful reload.",
		func(p program) float64 { return float64(p.Reloaded.UnixMilli()) / 1000 }),
	counter("fpm_gate_log_lines_lost_total", "Lines of the log that could not be written to stderr.",
		func(p program) uint64 { return p.LogLost }),
)

// gateMetrics come from counters that the gates keep anyway. A gate's counters survive reloads, but for those of its
// pool of connections. Locks and waiters are counted anew for each scrape.
var gateMetrics = newFamily(
	counters("fpm_gate_requests_total", "Requests that have ended.", gateFigures.requests, "gate", "route", "outcome"),
	counters("fpm_gate_slow_requests_total", "Requests that took longer than slow_request.",
		gateFigures.slow, "gate", "route"),
	counter("fpm_gate_requests_started_total", "Requests whose head was read.",
		func(g gateFigures) uint64 { return g.Requests }, "gate"),
	gauge("fpm_gate_conns", "Connections from web servers.", func(g gateFigures) int { return g.Conns }, "gate"),
	counter("fpm_gate_conns_refused_total", "Connections on which no request could be read.",
		func(g gateFigures) uint64 { return g.ConnsRefused }, "gate"),
	gauge("fpm_gate_locks", "Locks that are held.", func(g gateFigures) int { return g.locks }, "gate"),
	gauge("fpm_gate_lock_waiters", "Requests that wait for a lock.",
		func(g gateFigures) int { return g.waiters }, "gate"),
	gauge("fpm_gate_lock_oldest_hold_seconds", "Age of the lock that has been held longest.",
		func(g gateFigures) float64 { return g.oldestHold.Seconds() }, "gate"),
	gauge("fpm_gate_lock_oldest_wait_seconds", "Age of the wait that has lasted longest.",
		func(g gateFigures) float64 { return g.oldestWait.Seconds() }, "gate"),
	counter("fpm_gate_locks_expired_total", "Locks that were held for longer than their expiry.",
		func(g gateFigures) uint64 { return g.Expired }, "gate"),
	counter("fpm_gate_locks_lost_total", "Locks whose lease was lost in the store.",
		func(g gateFigures) uint64 { return g.Lost }, "gate"),
	counter("fpm_gate_locks_broken_total", "Locks that an operator has broken.",
		func(g gateFigures) uint64 { return g.LocksBroken }, "gate"),
	counter("fpm_gate_locks_local_total", "Locks that were held within this process only, as their store failed.",
		func(g gateFigures) uint64 { return g.Local }, "gate"),
	counter("fpm_gate_turns_given_away_total",
		"Turns that scripts gave away because they had not opened their session in time.",
		func(g gateFigures) uint64 { return g.GivenAway }, "gate"),
	counter("fpm_gate_sessions_reopened_total",
		"Scripts that opened their session again after they had closed it, without its lock, as far as that was seen.",
		func(g gateFigures) uint64 { return g.Reopened }, "gate"),
	counter("fpm_gate_sessions_mismatched_total",
		"Scripts that used another session than the one whose lock they held, as far as that was seen.",
		func(g gateFigures) uint64 { return g.Mismatched }, "gate"),
	counters("fpm_gate_scripts_terminated_total",
		"Scripts that kept their lock for too long and were ended: by PHP's time limit, or with their worker.",
		gateFigures.terminated, "gate", "by"),
	flag("fpm_gate_scripts_unterminable",
		"Whether the gate cannot end scripts although on_expiry or on_abandon says so: 1 or 0. The log shows what to do.",
		func(g gateFigures) bool { return g.CannotTerminate() != nil }, "gate"),
	counter("fpm_gate_session_cookies_unread_total",
		"Requests whose session cookie had no session id in it, by format or id_pattern.",
		func(g gateFigures) uint64 { return g.Unread }, "gate"),
	gauges("fpm_gate_session_misfit",
		"Whether the session block does not fit what PHP and the application do: 1 or 0. The log shows what to do.",
		gateFigures.misfits, "gate", "kind"),
	// The next three end as php-fpm_exporter's do, so that its dashboards need few changes.
	gauge("fpm_gate_active_processes", "Workers of PHP-FPM that run a script for the gate.",
		func(g gateFigures) int { return g.Active }, "gate"),
	gauges("fpm_gate_idle_processes", "Workers of max_connections that run no script for the gate.",
		gateFigures.idle, "gate"),
	gauges("fpm_gate_total_processes", "Workers that the gate may use: max_connections.",
		gateFigures.total, "gate"),
	flag("fpm_gate_paused", "Whether an operator has paused the gate: 1 or 0.",
		func(g gateFigures) bool { return g.paused }, "gate"),
	gauge("fpm_gate_upstream_queue",
		"Requests that wait for one of max_connections, for PHP-FPM's return or for the end of a pause.",
		func(g gateFigures) int { return g.Pool.Queued }, "gate"),
	counter("fpm_gate_upstream_dials_total", "Attempts to connect to PHP-FPM.",
		func(g gateFigures) uint64 { return g.Pool.Dials }, "gate"),
	counter("fpm_gate_upstream_dial_errors_total", "Attempts to connect to PHP-FPM that failed.",
		func(g gateFigures) uint64 { return g.Pool.DialErrors }, "gate"),
	counter("fpm_gate_upstream_reuses_total", "Requests that were sent on an existing connection.",
		func(g gateFigures) uint64 { return g.Pool.Reuses }, "gate"),
	counter("fpm_gate_upstream_returns_awaited_total", "Requests that waited for the return of a PHP-FPM that was away.",
		func(g gateFigures) uint64 { return g.Pool.Returns }, "gate"),
	counter("fpm_gate_upstream_retries_total",
		"Requests that were sent again because PHP-FPM had closed their connection.",
		func(g gateFigures) uint64 { return g.Pool.Retries }, "gate"),
)

// upstreamMetrics describe each address of a gate, as the gate sees it. The pool knows that from its own connections
// and from the probes.
var upstreamMetrics = newFamily(
	gauges("fpm_gate_upstream_connections", "Connections to PHP-FPM.", func(u upstreamFigures, emit emit) {
		emit(float64(u.Busy), "busy")
		emit(float64(u.Idle), "idle")
	}, "gate", "address", "state"),
	flag("fpm_gate_upstream_up", "Whether the last connection to PHP-FPM succeeded, and PHP-FPM answers its ping "+
		"if it gets one and has no requests to work on.",
		func(u upstreamFigures) bool { return !u.Down && !u.Failing }, "gate", "address"),
	flag("fpm_gate_upstream_busy", "Whether the ping of PHP-FPM waits for a worker while requests of the gate run.",
		func(u upstreamFigures) bool { return u.Saturated }, "gate", "address"),
	flag("fpm_gate_upstream_workers_unseen", "Whether the workers of PHP-FPM cannot be looked at although they should be.",
		func(u upstreamFigures) bool { return u.Unseen != nil }, "gate", "address"),
)

// fpmMetrics come from PHP-FPM's status page, as of the last probe. They are missing while it cannot be read, so that
// no old figure looks like a new one.
var fpmMetrics = newFamily(
	counter("fpm_gate_phpfpm_accepted_connections_total", "Connections that PHP-FPM has accepted.",
		func(u upstreamFigures) uint64 { return u.Status.AcceptedConn }, "gate", "address", "pool"),
	// Over a unix socket PHP-FPM reports 0 for these two, whatever waits there.
	gauges("fpm_gate_phpfpm_listen_queue", "Connections in the backlog of PHP-FPM, if it knows them: over TCP.",
		func(u upstreamFigures, emit emit) {
			if u.Status.KnowsBacklog() {
				emit(float64(u.Status.ListenQueue))
			}
		}, "gate", "address", "pool"),
	gauges("fpm_gate_phpfpm_listen_queue_max", "Most connections that were in the backlog at once.",
		func(u upstreamFigures, emit emit) {
			if u.Status.KnowsBacklog() {
				emit(float64(u.Status.MaxListenQueue))
			}
		}, "gate", "address", "pool"),
	gauges("fpm_gate_phpfpm_processes", "PHP-FPM workers by state.", func(u upstreamFigures, emit emit) {
		emit(float64(u.Status.ActiveProcesses), "active")
		emit(float64(u.Status.IdleProcesses), "idle")
		emit(float64(u.Status.KeptProcesses), "kept")
	}, "gate", "address", "pool", "state"),
	gauge("fpm_gate_phpfpm_active_processes_max", "Most workers that were active at once.",
		func(u upstreamFigures) int { return u.Status.MaxActiveProcesses }, "gate", "address", "pool"),
	counter("fpm_gate_phpfpm_max_children_reached_total", "Times that PHP-FPM wanted more workers than pm.max_children.",
		func(u upstreamFigures) uint64 { return u.Status.MaxChildrenReached }, "gate", "address", "pool"),
	counter("fpm_gate_phpfpm_slow_requests_total", "Requests that took longer than request_slowlog_timeout.",
		func(u upstreamFigures) uint64 { return u.Status.SlowRequests }, "gate", "address", "pool"),
)

// storeMetrics describe this process's part in a store; other hosts export their own. They have no labels, as a config
// has one memcached block, and so all gates one store.
var storeMetrics = newFamily(
	gauge("fpm_gate_store_leases", "Leases that this process has in the store.",
		func(s sharedlock.Stats) int { return s.Leases }),
	gauge("fpm_gate_store_waits", "Locks that this process waits for while another host holds them.",
		func(s sharedlock.Stats) int { return s.Waits }),
	counter("fpm_gate_store_leases_lost_total",
		"Leases found taken or missing on renewal, or missing on release.",
		func(s sharedlock.Stats) uint64 { return s.Lost }),
)

// serverMetrics describe each lock server, as this process sees it. The label is the server's address in the config.
var serverMetrics = newFamily(
	flag("fpm_gate_store_up", "Whether the server is up: 0 while it is marked down.",
		func(v sharedlock.ServerStats) bool { return v.Up }, "server"),
	flag("fpm_gate_store_grace", "Whether the server grants no new leases yet, because it has lost the old ones.",
		func(v sharedlock.ServerStats) bool { return v.Grace }, "server"),
	gauge("fpm_gate_store_disagreements",
		"Settings of other hosts that differ from this one's: their locks do not exclude each other.",
		func(v sharedlock.ServerStats) int { return v.Disagree }, "server"),
	counter("fpm_gate_store_round_trips_total", "Round trips to the server.",
		func(v sharedlock.ServerStats) uint64 { return v.RoundTrips }, "server"),
	counter("fpm_gate_store_polls_total",
		"Reads of locks that are waited for, many of them in one round trip; max_poll_rate bounds them.",
		func(v sharedlock.ServerStats) uint64 { return v.Looks }, "server"),
	counter("fpm_gate_store_errors_total", "Round trips without an answer.",
		func(v sharedlock.ServerStats) uint64 { return v.Failures }, "server"),
	counter("fpm_gate_store_timeouts_total", "Round trips without an answer in time; they are errors, too.",
		func(v sharedlock.ServerStats) uint64 { return v.Timeouts }, "server"),
	counter("fpm_gate_store_not_sent_total",
		"Requests not sent because the server was marked down or too many were in flight.",
		func(v sharedlock.ServerStats) uint64 { return v.NotSent }, "server"),
	counter("fpm_gate_store_answers_lost_total", "Writes whose answer was lost, so that their outcome was looked up.",
		func(v sharedlock.ServerStats) uint64 { return v.LostAnswers }, "server"),
	counter("fpm_gate_store_forgot_total", "Times that the server may have lost all leases: restarts and flushes.",
		func(v sharedlock.ServerStats) uint64 { return v.Forgot }, "server"),
	counter("fpm_gate_store_leases_regained_total", "Leases that were missing on the server and were restored.",
		func(v sharedlock.ServerStats) uint64 { return v.Regained }, "server"),
)

// Describe sends the descriptions of the metrics that a scrape reads. Without them the registry would not see at the
// start that two metrics have the same name.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	programMetrics.describe(to)
	gateMetrics.describe(to)
	upstreamMetrics.describe(to)
	fpmMetrics.describe(to)
	storeMetrics.describe(to)
	serverMetrics.describe(to)
}

// Collect reads the metrics of what is served now.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	served := m.served() // once, so that a reload in between does not mix two configs
	programMetrics.collect(to, program{served, m.version})
	// One snapshot for all gates: it takes as long as there are locks and waiters.
	held := lockFigures(served.Locks)
	for _, g := range served.Gates {
		state := g.PauseState()
		gateMetrics.collect(to, gateFigures{g, g.Stats(), held[g.Name], state.Paused()}, g.Name)
		for _, u := range g.Upstreams() {
			figures := upstreamFigures(u)
			upstreamMetrics.collect(to, figures, g.Name, u.Addr.String())
			if u.Status != nil { // pool is PHP-FPM's own name for it
				fpmMetrics.collect(to, figures, g.Name, u.Addr.String(), u.Status.Pool)
			}
		}
	}
	for _, l := range served.Locks {
		if l.Store == nil {
			continue
		}
		stats := l.Store.Stats()
		storeMetrics.collect(to, stats)
		for _, v := range stats.Servers {
			serverMetrics.collect(to, v, v.Server)
		}
	}
}

// What the metrics of a family are read from.
type (
	program struct {
		Served
		version string
	}
	gateFigures struct {
		Gate
		gate.Stats
		held
		paused bool
	}
	upstreamFigures gate.UpstreamStats
)

// requests emits zeros too, so that rate() has a first value for each outcome.
func (g gateFigures) requests(emit emit) {
	for _, route := range g.Routes {
		for end, n := range route.Outcomes {
			emit(float64(n), route.Name, gate.Outcome(end).String())
		}
	}
}

// slow emits one value a route, as routes are in the config and thus few.
func (g gateFigures) slow(emit emit) {
	for _, route := range g.Routes {
		emit(float64(route.Slow), route.Name)
	}
}

// idle is not known without max_connections. A script that goes on after its response is not among these. A gauge
// without a value is left out, and a dashboard shows a gap in place of a wrong 0.
func (g gateFigures) idle(emit emit) {
	if g.Total > 0 {
		emit(float64(max(g.Total-g.Active, 0)))
	}
}

// total is left out, too, where there is no such bound.
func (g gateFigures) total(emit emit) {
	if g.Total > 0 {
		emit(float64(g.Total))
	}
}

// terminated emits how scripts were ended, or could not be.
func (g gateFigures) terminated(emit emit) {
	emit(float64(g.Interrupted), "limit")
	emit(float64(g.Terminated), "term")
	emit(float64(g.Unterminated), "failed")
}

func (g gateFigures) misfits(emit emit) {
	found := g.Misfits()
	for _, kind := range gate.MisfitKinds() { // each of them, so that an alert sees 1 turn into 0
		is := slices.ContainsFunc(found, func(m gate.Misfit) bool { return m.Kind == kind })
		emit(number(is), kind)
	}
}

// held counts what the requests of one gate hold and wait for.
type held struct {
	locks, waiters         int
	oldestHold, oldestWait time.Duration
}

// lockFigures counts each lock for the gate of its holder, and each waiter for its own gate.
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
