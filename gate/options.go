package gate

import (
	"slices"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// Options are what a gate is told. Slices in them must not change once they are given.
type Options struct {
	Name        string               // for logs
	Realm       string               // the namespace of session ids
	Locks       *sessionlock.Manager // keeps the locks; several gates may share it
	SharedLocks bool                 // Locks are shared with other hosts, and who waits there is not told here
	Secret      []byte               // keys the hash of session ids; nil: a plain hash
	MaxConns    int                  // from web servers; zero: no limit
	Limits      fcgi.Limits
	Upstream    fcgi.PoolOptions
	Probes      fcgi.ProbeOptions
	Session     phpsession.Rules            // without Unread, which is the gate's own
	Suggest     func(names []string) string // what to write for cookies of these names; "" or nil: nothing is known of them
	Watcher     sessionwatch.Watcher        // sees PHP close a session: its lock ends then; nil: it ends with the script
	PHPLocks    bool                        // PHP locks the sessions itself, so nothing is lost when a lock ends before its script
	OpenWithin  time.Duration               // a watched script that has not opened its session gives its turn away after this; zero: never
	Param       string                      // a param that holds the session id, before all cookies; empty: none
	Holder      AskHolder                   // asks the store who holds a lock; nil: all are held in this process
	Policy      Policy                      // of requests that match no route
	Routes      []Route                     // the first match wins
	SlowWait    time.Duration               // a wait that is longer is logged
	Meter       func(route string) Meter    // makes that of a route, or with "" of the requests that match none; nil: nobody measures
}

// Mode says what a request does with its session's lock.
type Mode int

// The modes.
const (
	Exclusive Mode = iota // holds it
	Read                  // waits for those ahead, and holds nothing
	Off                   // has nothing to do with it
)

// StoreFailure says what becomes of a request whose lock cannot be had because its store fails.
type StoreFailure int

// What there is.
const (
	StoreFailureLocal  StoreFailure = iota // the lock is held within this process
	StoreFailureReject                     // the request is rejected
	StoreFailurePass                       // it goes on without the lock
)

// Policy is how the lock of a request's session is taken and given back.
type Policy struct {
	Mode         Mode
	MaxWait      time.Duration
	Expiry       time.Duration // the longest hold
	MaxWaiters   int           // in one session's queue
	PassMaxWait  bool          // on_max_wait = "pass": go on without the lock; else it is rejected
	PassRotated  bool          // on_rotation = "pass": go on with an id that was replaced meanwhile; else browsers are redirected
	AbortExpired bool          // on_expiry = "abort": the request ends; else only its lock does
	StoreFailure StoreFailure
	AbandonAfter time.Duration // how long a script whose web server has hung up keeps its lock
	AtHeaders    bool          // release_on = "headers": of the response; else the script's end
	Status       int           // of a rejected request
	RetryAfter   time.Duration // of a rejected request; in whole seconds, rounded up
	ServerTiming bool          // a Server-Timing response header tells the wait
	Observe      bool          // nobody waits: what would have waited is counted and logged
}

// Route is a Policy for the requests that match. An empty list matches all.
type Route struct {
	Name    string
	Paths   []string // patterns: /a exactly, /a/* one segment below, /a/** all below
	Methods []string
	Hosts   []string // without port, in lower case
	Policy  Policy
}

// match is what a route says to a request.
type match int

const (
	differs match = iota
	matches
	unclear // the path of the request can be read in several ways, and might match in one of them
)

// match compares a request with the route. One of its path patterns has to match SCRIPT_NAME or the request's path.
func (r *Route) match(a *asked) match {
	switch {
	case len(r.Methods) > 0 && !slices.Contains(r.Methods, a.method):
		return differs
	case len(r.Hosts) > 0 && !slices.Contains(r.Hosts, a.host):
		return differs
	case len(r.Paths) == 0 || r.matchPath(a.script) || r.matchPath(a.target):
		return matches
	case a.unclear:
		return unclear
	}
	return differs
}

func (r *Route) matchPath(p string) bool {
	return p != "" && slices.ContainsFunc(r.Paths, func(pattern string) bool { return matchPath(pattern, p) })
}
