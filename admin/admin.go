// Package admin is the operator's view of a process's gates. It serves the locks with their holders and waiters as
// JSON, as a stream of events and as a page; metrics, health and the last hour; and the few operations that change
// something: break a lock, pause a gate, set the log level.
//
// It reads the gates when an operator asks; only the Meters are on the request path. It never sees a session id: a
// lock is identified by its key, which is a hash.
package admin

import (
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/admin/page"
	"github.com/fpm-gate/fpm-gate/gate"
)

// Options configure an Admin.
type Options struct {
	Log     hclog.Logger  // its level can be changed; the gates' loggers share it
	Version string        // of the program
	Host    string        // the name of this host, as the store knows it
	Served  func() Served // returns what is served now; called concurrently
}

// Admin answers an operator's requests. Create it with New.
type Admin struct {
	options Options
	metrics *metrics
	history *history
	locks   *lockHandler
	feed    *feed
	health  *health
	handler http.Handler

	stop    chan struct{} // closed to end the event streams
	stopped sync.Once
}

// New returns an Admin. It does not listen; see Serve.
func New(o Options) *Admin {
	a := &Admin{
		options: o, metrics: newMetrics(o.Version, o.Served), history: newHistory(), health: &health{served: o.Served},
		stop: make(chan struct{}),
	}
	a.locks = &lockHandler{log: o.Log, host: o.Host, served: o.Served}
	a.feed = newFeed(a.locks.page, a.stop)
	a.handler = a.routes()
	return a
}

// Meters returns the function that makes the meters of a gate's routes, for gate.Options.
func (a *Admin) Meters(gateName string) func(route string) gate.Meter {
	return func(route string) gate.Meter { return newMeter(a.metrics, a.history, gateName, route) }
}

// routes maps paths to handlers. The patterns have methods, so the mux answers any other with 405. The profiles are not
// those of http.DefaultServeMux, on which any package could put more.
func (a *Admin) routes() http.Handler {
	o, locks := &a.options, a.locks
	pauses := &pauseHandler{log: o.Log, served: o.Served}
	level := &levelHandler{log: o.Log}
	m := http.NewServeMux()
	m.HandleFunc("GET /locks", locks.get)
	m.HandleFunc("GET /locks/{key}/why", locks.getWhy)
	m.HandleFunc("DELETE /locks/{key}", locks.delete)
	m.HandleFunc("GET /pause", pauses.get)
	m.HandleFunc("PUT /pause", pauses.put)
	m.HandleFunc("DELETE /pause", pauses.delete)
	m.HandleFunc("GET /events", a.feed.serve)
	m.HandleFunc("GET /history", a.history.serve)
	m.Handle("GET /metrics", a.metrics.handler())
	m.HandleFunc("GET /healthz", a.health.serveAlive)
	m.HandleFunc("GET /readyz", a.health.serveReadiness)
	m.HandleFunc("GET /log-level", level.get)
	m.HandleFunc("PUT /log-level", level.put)
	m.HandleFunc("GET /debug/pprof/", a.profile(pprof.Index))
	m.HandleFunc("GET /debug/pprof/cmdline", a.profile(pprof.Cmdline))
	m.HandleFunc("GET /debug/pprof/profile", a.profile(pprof.Profile))
	m.HandleFunc("GET /debug/pprof/symbol", a.profile(pprof.Symbol))
	m.HandleFunc("GET /debug/pprof/trace", a.profile(pprof.Trace))
	m.Handle("GET /", page.Handler())
	return m
}

// profile serves one of Go's profiles unless the config turns them off.
func (a *Admin) profile(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !a.options.Served().Profiles {
			reply(w, http.StatusNotFound, ErrorPage{Error: "profiles are off: pprof = false in the admin block"})
			return
		}
		serve(w, r)
	}
}

// Serve serves operators on l in the background until the returned server is closed, which closes l. An Admin can
// serve on several listeners.
func (a *Admin) Serve(l net.Listener) *http.Server {
	s := &http.Server{
		Handler:           guard(l.Addr(), a.handler),
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ConnContext:       withPeer,
		ErrorLog:          a.options.Log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	go func() {
		err := s.Serve(newLimited(l))
		if !errors.Is(err, http.ErrServerClosed) {
			a.options.Log.Error("admin stopped serving; reload to start it again", "error", err)
		}
	}()
	return s
}

// Close ends the event streams. It can be called more than once.
func (a *Admin) Close() { a.stopped.Do(func() { close(a.stop) }) }
