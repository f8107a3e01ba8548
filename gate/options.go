package gate

import (
	"slices"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// Options configure a gate. Slices in them must not change once a gate has them.
type Options struct {
	Name        string               // for logs
	Realm       string               // the namespace of session ids
	Locks       *sessionlock.Manager // keeps the locks; several gates can share it
	SharedLocks bool                 // Locks are shared with other hosts, whose waiters we cannot see
	Secret      []byte               // keys the hash of session ids; nil: a plain hash
	MaxConns    int                  // from web servers; zero: no limit
	Limits      fcgi.Limits
	Upstream    fcgi.PoolOptions
	Probes      fcgi.ProbeOptions
	Session     phpsession.Rules            // without Unread, which the gate sets
	Suggest     func(names []string) string // suggests a config for cookies of these names, or ""; may be nil
	Watcher     sessionwatch.Watcher        // a lock ends when it sees PHP close the session; nil: with the script
	PHPLocks    bool                        // PHP locks sessions itself, so a lock may end before its script
	OpenWithin  time.Duration               // after which an unopened session's script gives its turn away; zero: never
	Param       string                      // holds the session id and precedes the cookies; "": none
	Holder      AskHolder                   // finds a holder in another process; nil: there are none
	Policy      Policy                      // of requests that match no route
	Routes      []Route                     // the first match wins
	SlowWait    time.Duration               // longer waits are logged
	Meter       func(route string) Meter    // makes the Meter of a route; "": of the other requests. May be nil
}

// Mode is what a request does with its session's lock.
type Mode int

// The modes.
const (
	Exclusive Mode = iota // holds it
	Read                  // waits for the requests ahead, and holds nothing
	Off                   // ignores it
)

// StoreFailure is what to do with a request when the lock store fails.
type StoreFailure int

// The possible values.
const (
	StoreFailureLocal  StoreFailure = iota // hold the lock within this process
	StoreFailureReject                     // reject the request
	StoreFailurePass                       // let it go on without the lock
)

// Policy is how the lock of a request's session is acquired and released.
type Policy struct {
	Mode         Mode
	MaxWait      time.Duration
	Expiry       time.Duration // the longest hold
	MaxWaiters   int           // in one session's queue
	PassMaxWait  bool          // on_max_wait = "pass": go on without the lock; else the request is rejected
	PassRotated  bool          // on_rotation = "pass": go on with a replaced id; else browsers are redirected
	AbortExpired bool          // on_expiry = "abort": the request ends; else only its lock does
	StoreFailure StoreFailure
	AbandonAfter time.Duration // how long a script keeps its lock after its web server has hung up
	AtHeaders    bool          // release_on = "headers": at the response's headers; else at the script's end
	Status       int           // of a rejected request
	RetryAfter   time.Duration // of a rejected request; in whole seconds, rounded up
	ServerTiming bool          // send a Server-Timing response header with the wait
	Observe      bool          // no request waits; those that would have are counted and logged
}

// Route is a Policy for the requests that match. An empty list matches every request.
type Route struct {
	Name    string
	Paths   []string // patterns: /a exactly, /a/* one segment below, /a/** all below
	Methods []string
	Hosts   []string // without port, in lower case
	Policy  Policy
}

// match is the result of comparing a request with a route.
type match int

const (
	differs match = iota
	matches
	unclear // the request's path can be read in several ways, one of which might match
)

// match compares a request with the route. A path pattern must match SCRIPT_NAME or the request's path.
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
