// Package sessionwatch watches from outside how PHP opens and closes its sessions: session files by inotify, and the
// sessions of php-memcached by polling its lock keys. It needs no change to PHP or the application.
//
// A caller can use it to let the next request of a session through as soon as a script has closed the session. The
// package reports a session as unopened only if it has seen PHP keep that very session in the watched place: the place
// may be the wrong one, and the id made up. The package knows nothing of FastCGI or of the gate's locks.
package sessionwatch

// Watcher watches the sessions that PHP keeps in one place.
type Watcher interface {
	// Watch watches the session of id for a request that is sent to PHP afterwards. changed is called once with Closed,
	// when PHP has opened the session and closed it again, and with Unknown whenever the session can no longer be seen,
	// for two seconds where a server is to answer. changed must neither block nor use the watcher.
	Watch(id []byte, changed func(State)) Watch
	// WatchOpen is Watch for a session that PHP should have opened already. If PHP has closed it again, the watch is
	// Closed from the start, and changed is not called with Closed.
	WatchOpen(id []byte, changed func(State)) Watch
	// Place names the watched place for an operator: a folder, or servers.
	Place() string
	// Close ends the watcher. Watches that have not been stopped become Unknown.
	Close()
}

// Watch is one request's watch over its session. Stop ends it.
type Watch interface {
	// State returns what has been seen so far. It does not wait for a server.
	State() State
	// Asks reports whether the watch polls a server. If so, changed is called after each Prioritize with the next answer,
	// unless that is Open.
	Asks() bool
	// Prioritize makes the watch prompt, because a request waits for the session to be closed: it looks at once, and then
	// often. Before the first Prioritize, changed may be called late or not at all.
	Prioritize()
	// Destroyed reports whether PHP has destroyed the session since the watch began, as session_regenerate_id(true)
	// does, as far as can be seen. It may wait for a server.
	Destroyed() bool
	// Stop ends the watch. changed may be called until Stop returns. A second call does nothing.
	Stop()
}

// State is what a watch has seen of its session.
type State int

// The states.
const (
	Unknown  State = iota // the session cannot be seen
	Unproven              // not seen so far, and no evidence that PHP keeps this session in this place
	Unseen                // not seen open, and no evidence that PHP keeps this session in this place
	Shut                  // PHP keeps it here and does not have it open now, but may have had since the watch began
	Unopened              // PHP keeps it here and has not opened it since the watch began
	Presumed              // PHP should have opened it before the watch, and has not closed it since
	Open                  // PHP has opened it
	Closed                // PHP has opened it and closed it again
)

// nothing is a watch of a session that cannot be watched.
type nothing struct{}

func (nothing) State() State    { return Unknown }
func (nothing) Asks() bool      { return false }
func (nothing) Prioritize()     {}
func (nothing) Destroyed() bool { return false }
func (nothing) Stop()           {}
