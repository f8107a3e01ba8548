// Package config reads and checks fpm-gate.hcl.
//
// A Config from Load, Parse or Default is complete: it has every default, its references are resolved and its values
// are within their bounds. An invalid file gives an Error with everything that is wrong in it. The package opens only
// that file. It does not check whether a socket can be bound, a user exists or a server answers; its callers do.
//
// The sample config fpm-gate.hcl in this folder documents every key with its default.
package config

import (
	"os"
	"regexp"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// Config is a complete, checked configuration. It must not be changed, so it can be shared.
type Config struct {
	Landlock  bool // the process that serves opens only what the config names, where the kernel can see to that
	Log       Log
	Admin     *Admin     // nil: no admin
	Memcached *Memcached // nil: no gate uses memcached
	Gates     []*Gate    // at least one, in the order of the file

	// Files are those that file() has read, by their absolute paths. A file may be named twice.
	Files []string

	// Warnings lists what is allowed but probably not intended. It may be empty.
	Warnings Report
}

// Log is how the program logs.
type Log struct {
	Level, Format string
	SlowWait      time.Duration // longer waits for a lock are logged; 0: every wait is
	SlowRequest   time.Duration // longer requests are logged; 0: none is
}

// Admin is where the admin listens.
type Admin struct {
	Listen     netaddr.Addr
	ListenMode os.FileMode // of a unix socket
	Pprof      bool        // whether Go's profiles are served
}

// Memcached is the lock store that the gates of a fleet share.
type Memcached struct {
	Servers   []netaddr.Addr // each unix or tcp, none twice
	Timeout   time.Duration  // of one round trip; shorter than a third of Lease
	Lease     time.Duration  // from 3s to 1h
	KeyPrefix string
	Secret    string // "": session ids are hashed without a key
	Quorum    bool   // with an odd number of servers, at least 3

	MaxPollRate int // reads per second, of all locks that are waited for

	Username, Password string // both or neither
	TLS                *TLS   // nil: plain connections
}

// TLS is how connections to memcached are encrypted. The files are not read here, but when the store is opened.
type TLS struct {
	CA        string // a PEM file with the CAs that sign the servers' certificates; "": the system's CAs
	Cert, Key string // PEM files of our client certificate; both or neither
}

// Gate is a gate between web servers and one PHP-FPM pool.
type Gate struct {
	Name string

	Listen                   netaddr.Addr // unix, tcp or systemd; no two gates have the same
	ListenMode               os.FileMode
	ListenOwner, ListenGroup string // a name or a number; "": the process's
	Realm                    string // the namespace of its session ids; never ""

	MaxConns                 int // 0: no limit
	MaxParams                int // bytes, of one request
	HeadTimeout, IdleTimeout time.Duration

	Upstream Upstream
	Session  Session
	Lock     Lock
	Routes   []*Route // the first match wins
}

// Upstream is the PHP-FPM pool behind a gate.
type Upstream struct {
	Addresses      []netaddr.Addr // at least one, each unix or tcp, none twice
	ConnectTimeout time.Duration
	MaxConnections int // at once to all addresses; 0: no limit
	QueueTimeout   time.Duration
	// UnreachableWait is how long a PHP-FPM that refuses connections is waited for; 0: not at all.
	UnreachableWait time.Duration
	Reuse, Idle     time.Duration // either 0: a connection per request

	PingPath, StatusPath string // "": not probed
	ProbeInterval        time.Duration
}

// Session is where a request carries its session id, and how PHP stores the session.
type Session struct {
	Application string // "": none; its name, whose defaults are in the other keys already

	Cookies   []string       // names, and patterns with * and ?; at least one, unless Query or Param is set
	IDPattern *regexp.Regexp // takes the id out of a cookie's value; nil: the value is the id
	Format    string         // of the value
	Keys      [][]byte       // that open it, 16 or 32 bytes each; at least one with FormatLaravel
	Query     []string       // names
	Param     string         // takes precedence over the cookies; "": none

	Handler string
	// SavePath is the folder of the session files without the depth, or memcached's servers as in PHP's
	// session.save_path; "": sessions are not watched.
	SavePath   string
	Depth      int            // levels of folders below SavePath
	Servers    []netaddr.Addr // of SavePath, for the handler memcached
	KeyPrefix  string         // of the keys of the handler memcached
	Watch      string         // where the gate sees whether PHP has a session open
	Locks      bool           // PHP locks its sessions itself; true by itself only for files and memcached
	LocksGiven bool           // Locks stands in the file, or follows from Application
	Reopens    bool           // scripts open their session again after they have closed it; follows from Application
	OpenWithin time.Duration  // 0: a script never gives its turn away

	MaxInputVars int // PHP's own limit
}

// Lock is the policy of a session's lock.
type Lock struct {
	Store string

	MaxWait    time.Duration // 0: no request waits
	Expiry     time.Duration
	MaxWaiters int

	OnMaxWait, OnRotation, OnExpiry, OnStoreFailure string

	TerminateGrace time.Duration // from 0 to 1.5s

	AbandonAfter time.Duration // 0: the lock ends when the browser leaves
	OnAbandon    string
	ReleaseOn    string

	Status     int           // 400 to 599
	RetryAfter time.Duration // whole seconds

	ServerTiming, Observe bool
}

// Route is a rule for some of a gate's requests. An empty Path, Methods or Host matches all.
type Route struct {
	Name    string
	Path    []string // "/a" exact, "/a/*" one more segment, "/a/**" everything below
	Methods []string
	Host    []string // lower case, without ports
	Mode    string
	Lock    Lock // the gate's lock with this route's keys applied
}

// The values of keys with a choice.
const (
	FormatText = "text"
	FormatJSON = "json"

	FormatPlain   = "plain"
	FormatLaravel = "laravel"

	HandlerAny       = "any"
	HandlerFiles     = "files"
	HandlerMemcached = "memcached"

	WatchAuto      = "auto"
	WatchWorkers   = "workers"
	WatchFiles     = "files"
	WatchMemcached = "memcached"
	WatchNone      = "none"

	StoreLocal     = "local"
	StoreMemcached = "memcached"

	OnMaxWaitReject = "reject"
	OnMaxWaitPass   = "pass"

	OnRotationRedirect = "redirect"
	OnRotationPass     = "pass"

	OverdueRelease   = "release"
	OverdueAbort     = "abort"
	OverdueTerminate = "terminate"

	OnStoreFailureLocal  = "local"
	OnStoreFailureReject = "reject"
	OnStoreFailurePass   = "pass"

	ReleaseOnClose   = "close"
	ReleaseOnEnd     = "end"
	ReleaseOnHeaders = "headers"

	ModeExclusive = "exclusive"
	ModeRead      = "read"
	ModeOff       = "off"
)
