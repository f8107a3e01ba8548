package main

import (
	"io"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
	"github.com/fpm-gate/fpm-gate/internal/supervisor"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// environment is what the supervisor of serve uses of this machine.
type environment struct {
	file     string // the config's; "": there is none
	load     func() (*config.Config, error)
	log      *logs
	sockets  sockets // from systemd
	unit     *unit   // nil: this process is not the one that serves of a unit
	admin    *admin.Admin
	watching watching // of PHP's sessions
}

var _ supervisor.Environment = (*environment)(nil)

// Load reads the config again.
func (e *environment) Load() (*config.Config, error) {
	if e.file == "" {
		return nil, supervisor.ErrNoFile
	}
	return e.load()
}

// Judge judges a config.
func (e *environment) Judge(c *config.Config) error { return judge(c) }

// Report writes an error to the log, as main writes it to stderr.
func (e *environment) Report(err error) { report(e.log.sink, err) }

// ConfigureLog makes level and format of the log those of a config.
func (e *environment) ConfigureLog(c config.Log) { e.log.configure(c) }

// Listen listens for a gate.
func (e *environment) Listen(g *config.Gate) ([]net.Listener, error) { return listen(g, e.sockets) }

// SetAccess sets the mode and owner of a gate's socket.
func (e *environment) SetAccess(g *config.Gate) error { return setAccess(g, g.Listen.Address) }

// IsGone reports whether the socket of a listener was removed or replaced.
func (e *environment) IsGone(l net.Listener) bool {
	own, ok := l.(*unixListener)
	return ok && own.isGone()
}

// Passed returns the names of the sockets that systemd has passed.
func (e *environment) Passed() (names []string) {
	for name := range e.sockets {
		names = append(names, name)
	}
	return names
}

// OpenStore opens the memcached store of a config.
func (e *environment) OpenStore(c *config.Config, old supervisor.Store) (supervisor.Store, error) {
	before, _ := old.(*sharedStore)
	s, err := openShared(c, before, e.log)
	if s == nil || err != nil {
		return nil, err
	}
	return s, nil
}

// GateOptions returns the options of a gate.
func (e *environment) GateOptions(c *config.Config, g *config.Gate, s supervisor.Store) gate.Options {
	o := gateOptions(c, g)
	o.Watcher, o.Workers = e.watching.watcher(g), e.watching.inWorkers(g)
	o.Unlock = e.watching.unlocker(g)
	o.Meter = e.admin.Meters(g.Name)
	if shared, ok := s.(*sharedStore); ok {
		o.Locks, o.FindHolder, o.SharedLocks = shared.locks, shared.holder, true
	}
	return o
}

// NewGate makes a gate.
func (e *environment) NewGate(o gate.Options) supervisor.Gate {
	return gate.New(o, e.log.Named(o.Name))
}

// ListenAdmin listens for operators.
func (e *environment) ListenAdmin(c *config.Admin) (net.Listener, error) { return listenAdmin(c) }

// SetAdminAccess sets the mode of the admin's socket.
func (e *environment) SetAdminAccess(c *config.Admin) error {
	return setAccess(asGate(c), c.Listen.Address)
}

// ServeAdmin serves operators.
func (e *environment) ServeAdmin(l net.Listener) io.Closer { return e.admin.Serve(l) }

// CloseAdmin ends the event streams.
func (e *environment) CloseAdmin() { e.admin.Close() }

// LandlockVersion returns the version of the kernel's Landlock.
func (e *environment) LandlockVersion() (int, error) { return landlock.Version() }

// Traces reports whether this process looks at PHP-FPM's workers with rights of its own.
func (e *environment) Traces() bool {
	return e.watching.workers != nil && phpworker.Rights() == nil
}

// Rules returns what the process that serves c needs to open.
func (e *environment) Rules(c *config.Config) landlock.Rules { return rulesFor(e.file, c) }

// Confine restricts the process.
func (e *environment) Confine(rules landlock.Rules) error {
	err := confineTo(rules, e.load)
	e.watching.confined = err == nil
	return err
}

// Notify notifies systemd. Where it does not listen, in a shell say, nothing is done.
func (e *environment) Notify(state string) error {
	if e.unit != nil {
		return e.unit.notify(state)
	}
	_, err := daemon.SdNotify(false, state)
	return err
}

// Exit exits when the log is written.
func (e *environment) Exit() {
	e.log.sink.flush()
	os.Exit(exitFailed)
}
