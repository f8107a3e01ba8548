// Package phpworker looks at the PHP-FPM worker that serves an upstream connection: it finds the worker's process,
// reads from its memory whether PHP has its session open, and ends its script.
//
// Everything happens from outside. PHP, its extensions and the application need no change and notice nothing. It works
// for every session handler, as all of them open and close their sessions through the same few lines of PHP. The worker
// must run on this host, in this process's PID namespace, and reading it takes rights: see ErrRights.
//
// A Finder finds workers. Local does so by itself; Helper asks a helper process that has the rights, served by Server.
// The package knows nothing of FastCGI, nor of the gate's locks.
package phpworker

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// Finder finds the workers of upstream connections. Its methods may be called concurrently.
type Finder interface {
	// Find returns the worker that has accepted conn, a unix or TCP connection whose own end this process holds. The
	// worker stays the same for as long as the connection lives, so one call serves all its requests. Find takes about
	// a millisecond, and more for the first worker of a program; it waits for no one else. See the package's errors
	// for what keeps it from finding one. The caller closes the worker.
	//
	// A Helper passes conn to another process. A connection that was passed must be shut down before it is closed:
	// otherwise PHP-FPM would not notice its end for as long as a helper that hangs has it too.
	Find(conn syscall.RawConn) (Worker, error)
	// Ready returns nil if the rights are there, or a helper listens that has them. It shows what is missing before there
	// is a connection to be asked about. The error wraps ErrRights or ErrHelper; it is ErrNoKill where workers can be
	// looked at all the same.
	Ready() error
}

// Worker is the process that serves one upstream connection. Its methods may be called concurrently. All but PID and
// Close return ErrGone once the process has ended or has let go of the connection; a worker that is gone does not
// come back.
type Worker interface {
	// PID is the process's id in the PID namespace of whoever found it.
	PID() int
	// Session reads what PHP does with its session at this moment. It takes a few microseconds, or a round trip to a
	// helper, and does not stop the process.
	Session() (Session, error)
	// Await returns nil when the session may no longer be as seen, which Session returned last. It looks every few
	// milliseconds, though not before a pause, more rarely with time, and more rarely the more sessions are awaited. A
	// helper does so by itself, and answers when there is a change. The error is one of Session's, or that of ctx when it
	// ends first. Await is not to be called twice at a time.
	Await(ctx context.Context, seen Session, pause time.Duration) error
	// Activity reads what the process does at this moment, for an operator.
	Activity() (Activity, error)
	// Interrupt makes PHP end its script as it does at max_execution_time: with its own error message, with shutdown
	// functions, and closing the session, so that no lock is left behind. The worker lives on. It returns when the
	// signal has been sent; the session shows what comes of it, usually within milliseconds. A script that waits in a
	// blocking read goes on, and so does a shutdown function. A request that PHP is just beginning may end with its
	// worker: for some microseconds PHP has no handler for the signal then.
	//
	// Interrupt stops the process for about a millisecond and sends the signal only if the connection is still this one,
	// and only if the session's id is still id; with an empty id any session will do. The request must not end meanwhile,
	// as far as that is the caller's to decide.
	Interrupt(id string) error
	// Terminate ends the process, as PHP-FPM itself does at request_terminate_timeout; PHP-FPM starts another one.
	// Locks that PHP holds by keys, as in memcached and Redis, are left behind. The conditions are Interrupt's.
	Terminate(id string) error
	// Close frees what the worker takes here, and leaves the process alone.
	Close() error
}

// Session is what PHP does with its session.
type Session struct {
	Status Status
	// ID is the session's id; empty if PHP has none. It is set before the session is opened, and stays when the session
	// is closed, until the request ends or the session is destroyed.
	ID      string
	Name    string // session.name, such as PHPSESSID
	Handler string // session.save_handler as it is in use: files, memcached, redis, user, …; empty if PHP has none
	// StartedFile and StartedLine are where session_start() was called, since PHP 8.3; empty and 0 if not known.
	StartedFile string
	StartedLine int
	// Opened tells a session that was closed from an id that was only set, as by session_id('x').
	Opened Opened
}

// Status is PHP's own word for the state of the session.
type Status int

// The values of Status. To tell a session that is closed from one that was never opened takes the ID or an earlier
// look.
const (
	// This PHP's version is unknown, and nothing has shown yet that it is understood; or the id is too long to be read.
	Unknown  Status = iota
	Disabled        // sessions are disabled
	None            // PHP has no session open
	Active          // PHP has its session open
)

// String returns a word for logs.
func (s Status) String() string {
	switch s {
	case Disabled:
		return "disabled"
	case None:
		return "none"
	case Active:
		return "active"
	}
	return "unknown"
}

// Opened is what is known of whether PHP has opened a session in the request that it serves now. It can be told from a
// variable that PHP keeps until the request ends or the session is destroyed: $_SESSION, as the session module sees it.
type Opened int

// The values of Opened.
const (
	NotKnown Opened = iota // this PHP was not seen with an open session yet, or is not understood so far
	NotYet                 // no session was opened, or the last one was destroyed
	Before                 // a session was opened, and is open or has been closed
)

// Activity is what a process does.
type Activity struct {
	PID     int
	State   string // such as "running" or "sleeping"
	Syscall string // the name of the system call that it is in; empty if in none, or not known
	// Target is what the descriptor of the system call leads to, such as "10.0.0.7:3306"; empty if not known. Where the
	// rights do not suffice to see which it is, all candidates are named.
	Target  string
	CPU     time.Duration // that it has used since it was started, for all its requests
	Program string        // the path of its program
	Version string        // PHP's, such as 8.2.36; empty if not known
	Session Session
}

// The errors. Each that is returned wraps one of them, and says in plain words what was found and what to do.
var (
	// ErrGone is returned when the process has ended, or serves another connection.
	ErrGone = errors.New("the worker no longer serves this connection")
	// ErrWaiting is returned while the connection is in PHP-FPM's backlog: no worker has accepted it yet.
	ErrWaiting = errors.New("no worker has accepted the connection yet")
	// ErrBusy is returned when a process could not be stopped to be looked at before its end, and was not signaled.
	ErrBusy = errors.New("the worker cannot be stopped now")
	// ErrSession is returned when a process was to be ended while it uses one session, and uses another one.
	ErrSession = errors.New("the worker uses another session now")
	// ErrRights is returned when this process lacks a capability: CAP_SYS_PTRACE to look at the processes of another
	// user, CAP_KILL to end their scripts.
	ErrRights = errors.New("the rights are missing")
	// ErrNoKill is returned by Ready, and is an ErrRights, when workers can be looked at, but their scripts not be ended.
	ErrNoKill = fmt.Errorf("%w to end scripts", ErrRights)
	// ErrOtherHost is returned when PHP-FPM's end of a connection is on another host, or in another network namespace.
	ErrOtherHost = errors.New("PHP-FPM is not on this host")
	// ErrNamespace is returned when PHP-FPM runs in a PID namespace that is not visible here.
	ErrNamespace = errors.New("PHP-FPM is in another PID namespace")
	// ErrProgram is returned when what accepts the connections is not a PHP-FPM that may be looked at.
	ErrProgram = errors.New("the upstream is not a known PHP-FPM")
	// ErrThreadSafe is returned for a PHP that was built with threads (ZTS).
	ErrThreadSafe = errors.New("PHP is thread-safe (ZTS)")
	// ErrLayout is returned when PHP's session module was not found in the program, or does not look as expected.
	ErrLayout = errors.New("this PHP is not understood")
	// ErrHelper is returned when the helper cannot be reached, or does not answer as it should.
	ErrHelper = errors.New("fpm-gate helper")
)

// Temporary reports whether Find may succeed for the next connection, or for this one a little later, though it failed
// with err. Every other error lasts until the operator changes something.
func Temporary(err error) bool {
	for _, e := range []error{ErrGone, ErrWaiting, ErrBusy, ErrSession, ErrHelper} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
