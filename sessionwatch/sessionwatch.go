// Package sessionwatch watches PHP open and close its sessions, from outside: the session files by inotify, and those
// of php-memcached by asking for its lock keys. Neither PHP nor the application knows of it.
//
// What is seen is for callers that would let the next request of a session go to PHP: it need not wait for a script that
// has closed its session. That PHP has not opened a session is believed only if PHP was seen to keep that very session
// in the place that is watched: the place may be the wrong one, and the id made up. The package knows nothing of
// FastCGI, nor of the gate's locks.
package sessionwatch

// Watcher watches the sessions that PHP keeps in one place.
type Watcher interface {
	// Watch watches the session of id, for a request that is sent to PHP afterwards. changed is called with Closed,
	// once, when PHP has opened the session and has closed it again; and with Unknown when the session can no longer be
	// seen, or not for now. It must neither block nor use the watcher.
	Watch(id []byte, changed func(State)) Watch
	// WatchOpen is Watch for a session that PHP should have opened already. If it has been closed again, the watch is
	// Closed from the start, and changed is not called for that.
	WatchOpen(id []byte, changed func(State)) Watch
	// Place is what an operator calls the place: a folder, or servers.
	Place() string
	// Close ends the watcher. Watches that have not been stopped become Unknown.
	Close()
}

// Watch is one request's watch over its session. Stop ends it.
type Watch interface {
	// State is what has been seen so far. It does not wait for an answer of a server.
	State() State
	// Asks reports whether the state is what a server has answered last. Then changed is called after each Want with
	// what the next answer says, unless that is Open.
	Asks() bool
	// Want says that a request waits for the session to be closed: the watch looks at once, and then often. Until the
	// first call changed may be called late, or not at all.
	Want()
	// Destroyed reports whether PHP has destroyed the session since the watch began, as session_regenerate_id(true)
	// does, as far as that can be told. It may ask a server.
	Destroyed() bool
	// Stop ends the watch. changed may be called until Stop returns. A second call does nothing.
	Stop()
}

// State is what a watch has seen of its session.
type State int

// The states.
const (
	Unknown  State = iota // it cannot be told
	Unproven              // it cannot be told, and nothing shows that PHP keeps this session in this place
	Unseen                // not seen open, and nothing shows that PHP keeps this session in this place
	Shut                  // PHP keeps it in this place, and does not have it open; it may have had since the watch began
	Unopened              // PHP keeps it in this place, and has not opened it since the watch began
	Presumed              // PHP should have opened it before, and has not closed it since
	Open                  // PHP has opened it
	Closed                // and closed it again
)

// nothing is a watch that sees nothing.
type nothing struct{}

func (nothing) State() State    { return Unknown }
func (nothing) Asks() bool      { return false }
func (nothing) Want()           {}
func (nothing) Destroyed() bool { return false }
func (nothing) Stop()           {}
