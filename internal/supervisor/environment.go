package supervisor

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
)

// Environment is all that a Supervisor needs of the process and the machine around it. Unless a method says otherwise,
// only the goroutine that runs the supervisor calls it.
type Environment interface {
	Configs
	Sockets
	Builder
	Admin
	Confiner

	// Notify sends a state to systemd, as sd_notify does. It is called concurrently.
	Notify(state string) error
	// Exit ends the process at once, as one that has failed. It is called concurrently.
	Exit()
}

// Configs reads configs, and applies what is the process's rather than a gate's.
type Configs interface {
	// Load reads the config again. It returns ErrNoFile if there is none. It is called in the background, and may be slow.
	Load() (*config.Config, error)
	// Judge returns what keeps this process from serving a config that is valid. It is called in the background. The
	// process does not end while it is under way, unless it takes longer than a second.
	Judge(*config.Config) error
	// Report shows an operator an error of Load in full.
	Report(error)
	// ConfigureLog sets the level and the format of the log.
	ConfigureLog(config.Log)
}

// ErrNoFile is returned by Configs.Load when the process serves without a config file.
var ErrNoFile = errors.New("there is no config file")

// Sockets opens what gates listen on.
type Sockets interface {
	// Listen opens the address of a gate. Several sockets may have the same systemd name. The supervisor closes them.
	Listen(*config.Gate) ([]net.Listener, error)
	// SetAccess gives the unix socket of a gate, which is open already, the mode and owner of its config.
	SetAccess(*config.Gate) error
	// IsGone reports whether no client can reach a listener of Listen any longer, as its unix socket was removed or
	// replaced. A reload calls Listen again then. It is called concurrently.
	IsGone(net.Listener) bool
	// Passed returns the names of the sockets that systemd has passed.
	Passed() []string
}

// Builder makes gates and stores of their blocks in a config.
type Builder interface {
	// OpenStore opens the store that the gates of a config share with other hosts. It returns old, which may be nil, if
	// that is the same store, and nil if no gate needs one. A server that is down is no error.
	OpenStore(c *config.Config, old Store) (Store, error)
	// GateOptions returns what the config says of a gate, without Paused. Its locks are in s or, if that is nil, in the
	// process; the supervisor sets Locks then. The supervisor closes the options' Watcher.
	GateOptions(c *config.Config, g *config.Gate, s Store) gate.Options
	// NewGate makes a gate.
	NewGate(gate.Options) Gate
}

// Gate is what a Supervisor needs of a gate.Gate, which has the docs.
type Gate interface {
	Serve(net.Listener) error
	Configure(gate.Options) (idle <-chan struct{})
	Shutdown(ctx context.Context, grace time.Duration) error
	Conns() int
	Listening() bool
	Pause(limit time.Duration)
	Resume() bool
}

var _ Gate = (*gate.Gate)(nil)

// Store is a lock store that hosts share.
type Store interface {
	// Relabel has the store name the gates of c as its users.
	Relabel(c *config.Config)
	// Retire is called when another store takes the place of this one, which is used by its requests until Close.
	Retire()
	// Close is called once, in the background, when no request uses the store.
	Close() error
}

// Admin is where operators look at the process.
type Admin interface {
	// ListenAdmin opens the address of the admin. The supervisor closes the listener, unless it passes it to ServeAdmin.
	ListenAdmin(*config.Admin) (net.Listener, error)
	// IsGone is as for Sockets.
	IsGone(net.Listener) bool
	// SetAdminAccess gives the unix socket of the admin, which is open already, the mode of its config.
	SetAdminAccess(*config.Admin) error
	// ServeAdmin serves operators in the background, until the result is closed. It owns the listener.
	ServeAdmin(net.Listener) io.Closer
	// CloseAdmin ends all that operators follow. It is called concurrently, and maybe twice.
	CloseAdmin()
}

// Confiner restricts the files that the process can open.
type Confiner interface {
	// LandlockVersion returns the version of the kernel's Landlock, or why this process cannot use it.
	LandlockVersion() (int, error)
	// Traces reports whether this process looks at PHP-FPM's workers by rights of its own, which it would lose.
	Traces() bool
	// Rules returns what the process needs to open while it serves c. It is called in the background.
	Rules(c *config.Config) landlock.Rules
	// Confine restricts the process to rules, for good, if it can read and judge its config with them. After an error the
	// process is as it was.
	Confine(landlock.Rules) error
}

// Unit is a systemd unit, to the one of its processes that serves. Its main process passes signals on, and ends before
// this one where another process of the unit takes over.
type Unit interface {
	// DialPredecessor connects to the process that served before this one, if that has not ended yet; nil: it has.
	DialPredecessor() (net.Conn, error)
	// ListenForSuccessor listens where the next process connects to this one.
	ListenForSuccessor() (net.Listener, error)
	// Restarts reports whether systemd is going to start the unit again.
	Restarts() (bool, error)
	// Release ends the main process, so that systemd starts the next one. No signal comes after that.
	Release() error

	// LoadPauses returns until when gates are paused, by their names, as a process of the unit has last saved it. It is
	// called concurrently.
	LoadPauses() (map[string]time.Time, error)
	// SavePauses replaces what LoadPauses returns. It is called by one goroutine at a time.
	SavePauses(map[string]time.Time) error
}

// ErrNoFolder is returned by a Unit that has no folder in which its processes could meet.
var ErrNoFolder = errors.New("the unit has no RuntimeDirectory=")
