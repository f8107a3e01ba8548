// Package config reads fpm-gate.hcl and checks it whole.
//
// A Config that Load, Parse or Default has returned can be used as it stands: every default is
// filled in, every reference is resolved, every value is within its bounds. A wrong file gives an
// Error with everything that is wrong in it at once. The package opens nothing but the file and
// knows no other package of the program: whether a socket can be bound, a user exists or a store
// answers is for others to find out.
//
// fpm-gate.hcl beside this file names every key with its default and its meaning.
package config

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Config is a whole checked configuration. Nobody changes it once it is returned, so it may be
// shared.
type Config struct {
	Log       Log
	Admin     *Admin     // nil: no admin
	Memcached *Memcached // nil: no gate uses memcached
	Gates     []*Gate    // at least one, in the order of the file

	// Warnings is what is allowed but probably not meant. It may be empty.
	Warnings Report
}

// Log says what the program logs, and how.
type Log struct {
	Level, Format string
	SlowWait      time.Duration // a longer wait for a lock is logged; 0: every wait is
}

// Admin is where the operator's side listens.
type Admin struct {
	Listen     Address
	ListenMode os.FileMode // of a unix socket
	Pprof      bool        // whether Go's profiles are served
}

// Memcached is the store that the gates of a fleet share.
type Memcached struct {
	Servers   []Address     // each unix or tcp, none twice
	Timeout   time.Duration // of one round trip; shorter than a third of Lease
	Lease     time.Duration // from 3s to 1h
	KeyPrefix string
	Secret    string // "": session ids are hashed without a key
	Quorum    bool   // with an odd number of servers, at least 3

	MaxPollRate int // questions a second for all locks that are waited for

	Username, Password string // either both or none
	TLS                *TLS   // nil: plain connections
}

// TLS is how the connections to memcached are encrypted. The files are read by who connects.
type TLS struct {
	CA        string // a PEM file with who signs the servers' certificates; "": those of the system
	Cert, Key string // PEM files by which the servers know us; either both or none
}

// Gate stands between web servers and one PHP-FPM pool.
type Gate struct {
	Name string

	Listen                   Address // unix, tcp or systemd; no two gates have the same
	ListenMode               os.FileMode
	ListenOwner, ListenGroup string // "": as the process; a name or a number
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
	Addresses      []Address // at least one, each unix or tcp, none twice
	ConnectTimeout time.Duration
	MaxConnections int // at once to all addresses; 0: no limit
	QueueTimeout   time.Duration
	Reuse, Idle    time.Duration // either 0: a connection per request

	PingPath, StatusPath string // "": not asked
	ProbeInterval        time.Duration
}

// Session says where a request carries its session id, and how PHP keeps the session.
type Session struct {
	Cookies, Query []string // names; with Param at least one in all
	Param          string   // "": none; goes before the cookies

	Handler string
	// SavePath is the folder of the session files without the depth, or memcached's servers as
	// PHP writes them; "": nothing is watched.
	SavePath   string
	Depth      int           // levels of folders below SavePath
	Servers    []Address     // those of SavePath, for the handler memcached
	KeyPrefix  string        // of the keys of the handler memcached
	Locks      bool          // another handler locks sessions itself, as files and memcached do
	OpenWithin time.Duration // 0: a script never gives its turn away

	MaxInputVars int // PHP's own limit
}

// Lock is the policy of a session's lock.
type Lock struct {
	Store string

	MaxWait    time.Duration // 0: nobody waits
	Expiry     time.Duration
	MaxWaiters int

	OnMaxWait, OnRotation, OnExpiry, OnStoreFailure string

	AbandonAfter time.Duration // 0: the lock goes with the browser
	ReleaseOn    string

	Status     int           // 400 to 599
	RetryAfter time.Duration // whole seconds

	ServerTiming, Observe bool
}

// Route is a rule for some of a gate's requests. An empty Path, Methods or Host matches all.
type Route struct {
	Name    string
	Path    []string // "/a" exact, "/a/*" one segment more, "/a/**" everything below
	Methods []string
	Host    []string // lower case, without ports
	Mode    string
	Lock    Lock // the gate's, with this route's keys laid over it
}

// What the keys with a choice may say.
const (
	FormatText = "text"
	FormatJSON = "json"

	HandlerAny       = "any"
	HandlerFiles     = "files"
	HandlerMemcached = "memcached"

	StoreLocal     = "local"
	StoreMemcached = "memcached"

	OnMaxWaitReject = "reject"
	OnMaxWaitPass   = "pass"

	OnRotationRedirect = "redirect"
	OnRotationPass     = "pass"

	OnExpiryRelease = "release"
	OnExpiryAbort   = "abort"

	OnStoreFailureLocal  = "local"
	OnStoreFailureReject = "reject"
	OnStoreFailurePass   = "pass"

	ReleaseOnEnd     = "end"
	ReleaseOnHeaders = "headers"

	ModeExclusive = "exclusive"
	ModeRead      = "read"
	ModeOff       = "off"
)

// Load reads a file. A file that cannot be read gives the error of the system, a wrong one an
// *Error.
func Load(filename string) (*Config, error) {
	src, err := os.ReadFile(filename)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return Parse(src, filename)
}

// Parse reads a file's text; filename is only for the messages. The only error is *Error.
func Parse(src []byte, filename string) (*Config, error) {
	f := newFile()
	d := newDecoder(filename)
	if body := d.parse(src); body != nil {
		d.body(body, f.block(), &found{d: d, title: "the config", header: body.EndRange})
	}
	report := d.report()
	if report.errors() > 0 {
		return nil, &Error{report}
	}
	f.Warnings = report
	return f.Config, nil
}

// Default returns a config of one gate, "default", with nothing set but its two addresses. A wrong
// address gives an *Error.
func Default(listen, upstream string) (*Config, error) {
	// Written out and parsed, so that flags pass the same checks as a file.
	const text = "gate \"default\" {\n  listen = %s\n  upstream {\n    address = %s\n  }\n}\n"
	return Parse(fmt.Appendf(nil, text, quoted(listen), quoted(upstream)), "--listen and --upstream")
}

var inQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "${", "$${", "%{", "%%{")

// quoted returns s as a string of HCL.
func quoted(s string) string {
	return `"` + inQuotes.Replace(s) + `"`
}
