// Package sessionwatch watches PHP open and close its sessions, from outside: the session files by inotify, and those
// of php-memcached by asking for its lock keys. Neither PHP nor the application knows of it.
//
// What is seen is for those who would let the next request of a session go to PHP: it need not wait for a script that
// has closed its session. It is no proof. Whoever goes too early meets PHP's own lock, so a watch that cannot be sure
// says that a session is closed rather than that it is not. The package knows nothing of FastCGI, nor of the gate's locks.
package sessionwatch

// Watcher watches the sessions that PHP keeps in one place.
type Watcher interface {
	// Watch watches the session of id, for a request that is sent to PHP afterwards. closed is called, once, when PHP
	// has opened the session and has closed it again. It must neither block nor use the watcher.
	Watch(id []byte, closed func()) Watch
	// WatchOpen is Watch for a session that PHP should have opened already.
	WatchOpen(id []byte, closed func()) Watch
	// Close ends the watcher. Watches that have not been stopped know nothing any more.
	Close()
}

// Watch is one request's watch over its session. Stop ends it.
type Watch interface {
	// State is what has been seen so far, until now.
	State() State
	// Want says that somebody waits for the session to be closed. Until then closed may be called late, or not at all.
	Want()
	// Destroyed reports whether PHP has destroyed the session since the watch began, as session_regenerate_id(true)
	// does, as far as that can be told. It may ask a server.
	Destroyed() bool
	// Stop ends the watch. closed may be called until Stop returns. A second call does nothing.
	Stop()
}

// State is what a watch has seen of its session.
type State int

// The states.
const (
	Unknown  State = iota // it cannot be told, and closed will not be called
	Unopened              // PHP has not opened it since the watch began
	Unseen                // it has not been seen open, which does not say that it was not
	Presumed              // PHP should have opened it before, and has not closed it since
	Open                  // PHP has opened it
	Closed                // and closed it again
)

// nothing is a watch that sees nothing.
type nothing struct{}

func (nothing) State() State    { return Unknown }
func (nothing) Want()           {}
func (nothing) Destroyed() bool { return false }
func (nothing) Stop()           {}
