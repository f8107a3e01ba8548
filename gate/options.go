package gate

import (
	"slices"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpfpm"
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
	Probes      phpfpm.ProbeOptions
	Session     phpsession.Rules            // without Unread, which the gate sets
	Suggest     func(names []string) string // suggests a config for cookies of these names, or ""; may be nil
	Watcher     sessionwatch.Watcher        // a lock ends when it sees PHP close the session; nil: with the script
	Workers     *Workers                    // sees sessions in PHP-FPM's workers, before Watcher does; may be nil
	Unlock      func(handler, id string)    // removes the lock of a PHP session whose worker was ended; may be nil
	LocksGiven  bool                        // PHPLocks holds for every handler; else a handler seen in a worker counts
	PHPLocks    bool                        // PHP locks sessions itself, so a lock may end before its script
	Reopens     bool                        // scripts open sessions again, so a lock that PHP lacks lasts until their end
	OpenWithin  time.Duration               // after which an unopened session's script gives its turn away; zero: never
	Param       string                      // holds the session id and precedes the cookies; "": none
	FindHolder  FindHolder                  // finds a holder in another process; nil: there are none
	Policy      Policy                      // of requests that match no route
	Routes      []Route                     // the first match wins
	SlowWait    time.Duration               // longer waits are logged
	SlowRequest time.Duration               // longer requests are logged while they run; zero: none is
	Paused      func(until time.Time)       // called when a pause begins or, with zero, ends; may be nil
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

// OnMaxWait is what to do with a request that has waited for MaxWait.
type OnMaxWait int

// The possible values.
const (
	OnMaxWaitReject OnMaxWait = iota // reject it
	OnMaxWaitPass                    // let it go on without the lock
)

// OnRotation is what to do with a request whose session id has been replaced while it waited.
type OnRotation int

// The possible values.
const (
	OnRotationRedirect OnRotation = iota // redirect browsers, so that they come back with the new id
	OnRotationPass                       // let it go on with the old id
)

// OnStoreFailure is what to do with a request when the lock store fails.
type OnStoreFailure int

// The possible values.
const (
	OnStoreFailureLocal  OnStoreFailure = iota // hold the lock within this process
	OnStoreFailureReject                       // reject the request
	OnStoreFailurePass                         // let it go on without the lock
)

// Overdue is what becomes of a script that keeps its lock for too long.
type Overdue int

// The possible values. OverdueTerminate is OverdueRelease where Options.Workers is nil.
const (
	OverdueRelease   Overdue = iota // the lock ends, the script runs on
	OverdueAbort                    // the request ends too
	OverdueTerminate                // the script is ended, and the lock with it or 2 s later
)

// ReleaseOn is when a lock is released at the latest.
type ReleaseOn int

// The possible values.
const (
	ReleaseOnClose   ReleaseOn = iota // when PHP closes the session, where that is seen, else when the script ends
	ReleaseOnHeaders                  // when the headers of the response are there
	ReleaseOnEnd                      // when the script ends
)

// Policy is how the lock of a request's session is acquired and released.
type Policy struct {
	Mode           Mode
	MaxWait        time.Duration
	Expiry         time.Duration // the longest hold
	MaxWaiters     int           // in one session's queue
	OnMaxWait      OnMaxWait
	OnRotation     OnRotation // of an id that has been replaced while the request waited
	OnExpiry       Overdue    // of a hold longer than Expiry
	OnAbandon      Overdue    // of a script longer than AbandonAfter: OverdueRelease or OverdueTerminate
	OnStoreFailure OnStoreFailure
	AbandonAfter   time.Duration // how long a script keeps its lock after its web server has hung up
	ReleaseOn      ReleaseOn
	Status         int           // of a rejected request
	RetryAfter     time.Duration // of a rejected request; in whole seconds, rounded up
	ServerTiming   bool          // send a Server-Timing response header with the wait
	Observe        bool          // no request waits; those that would have are counted and logged
	// TerminateGrace is how long a script may take to end by PHP's own time limit, before its worker is ended.
	TerminateGrace time.Duration
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
