// Package admin is what an operator sees of the gates of a process: who holds which lock and who waits behind him, as
// JSON, as a stream of events and as a page; metrics, health, the last hour; and the few things that can be changed
// from there.
//
// It asks the gates when it is asked itself: nothing of it stands in the way of a request but the Meters, which count.
// No session id comes here: a lock is known by its key, which is a hash.
package admin

import (
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/admin/page"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Options are what an Admin is told.
type Options struct {
	Log     hclog.Logger  // whose level can be changed, and that of the gates with it
	Version string        // of the program
	Host    string        // the name of this host, as the store knows it
	Served  func() Served // what is served at the moment; called from many goroutines
}

// Served is what a process serves. A reload changes it.
type Served struct {
	Gates    []Gate
	Locks    []Locks
	Draining bool // nothing more is accepted

	Profiles bool // whether Go's profiles are served

	LogLost    uint64 // lines of the log that could not be written
	LogFailing bool   // the last one is among them

	Reloaded     time.Time // when the config was taken that is in force
	ReloadFailed bool      // there was another one since, which was refused
}

// Gate is a gate with its name.
type Gate struct {
	Name string
	*gate.Gate
}

// Locks are the locks of some gates.
type Locks struct {
	*sessionlock.Manager
	Store Store // nil: they are in this process only
}

// Admin answers an operator. It is made by New.
type Admin struct {
	options Options
	metrics *metrics
	history *history
	feed    *feed
	health  health
	handler http.Handler

	stop    chan struct{} // closed when streams have to end
	stopped sync.Once
}

// New makes an admin, which listens nowhere yet.
func New(o Options) *Admin {
	a := &Admin{options: o, history: newHistory(), stop: make(chan struct{})}
	a.metrics = newMetrics(a)
	a.feed = newFeed(a)
	a.handler = a.routes()
	return a
}

// Meters makes the meters of a gate, by the names of its routes: for gate.Options.
func (a *Admin) Meters(gateName string) func(route string) gate.Meter {
	return func(route string) gate.Meter { return newMeter(a.metrics, a.history, gateName, route) }
}

func (a *Admin) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /locks", a.getLocks)
	m.HandleFunc("DELETE /locks/{key}", a.deleteLock)
	m.HandleFunc("GET /events", a.feed.serve)
	m.HandleFunc("GET /history", a.getHistory)
	m.Handle("GET /metrics", a.metrics.handler())
	m.HandleFunc("GET /healthz", a.getHealth)
	m.HandleFunc("GET /readyz", a.getReadiness)
	m.HandleFunc("GET /log-level", a.getLevel)
	m.HandleFunc("PUT /log-level", a.putLevel)
	m.HandleFunc("GET /debug/pprof/", a.profile(pprof.Index))
	m.HandleFunc("GET /debug/pprof/cmdline", a.profile(pprof.Cmdline))
	m.HandleFunc("GET /debug/pprof/profile", a.profile(pprof.Profile))
	m.HandleFunc("GET /debug/pprof/symbol", a.profile(pprof.Symbol))
	m.HandleFunc("GET /debug/pprof/trace", a.profile(pprof.Trace))
	m.Handle("GET /", page.Handler())
	return m
}

// profile serves one of Go's profiles, if the config lets it.
func (a *Admin) profile(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !a.options.Served().Profiles {
			reply(w, http.StatusNotFound, ErrorPage{Error: "profiles are off: pprof = false in the admin block"})
			return
		}
		serve(w, r)
	}
}

// Limits of what an operator's side may take from the requests: files, memory and time.
const (
	maxConns    = 256
	maxStreams  = 128             // of them
	headTimeout = 5 * time.Second // until a request is there
	idleTimeout = time.Minute
	sendTimeout = 10 * time.Second // of an answer, or of one event
	askTimeout  = 2 * time.Second  // for what has to be asked elsewhere
	profileTime = 10 * time.Minute // of a profile, whose length the operator says
	maxHead     = 16 << 10
)

// Serve serves operators on l, which it owns from now on, until the server that it returns is closed. An Admin may
// serve on several listeners, one after the other.
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
		if err := s.Serve(&limited{Listener: l, free: make(chan struct{}, maxConns)}); !errors.Is(err, http.ErrServerClosed) {
			a.options.Log.Error("admin ended", "error", err)
		}
	}()
	return s
}

// Close ends the streams of events.
func (a *Admin) Close() { a.stopped.Do(func() { close(a.stop) }) }

// limited is a listener that closes what is too many, at once: who comes next is better off with an error than with
// a wait that nothing ends.
type limited struct {
	net.Listener
	free chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: nc, leave: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			_ = nc.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
