// Package supervisor serves the gates of a config, and keeps serving whatever becomes of the config and the process: a
// reload takes effect as a whole or not at all, an end waits for the last request, and the next process of the unit
// takes over the locks.
//
// What a config comes to is a generation: its gates, and the store that they share. A reload prepares the next one: it
// opens all that is new. If any of that fails, it closes what it has opened, and the generation that serves stays as it
// is. Else the next generation begins, which cannot fail: gates that stay are reconfigured, others drain with the
// requests that they have. A store is closed after the last request that started with it. Pauses and the locks in the
// process belong to no generation.
//
// The package decides what is done and in which order. How it is done (sockets, files, memcached, PHP-FPM, systemd) is
// left to an Environment and a Unit, which cmd/fpm-gate has. A test fakes them.
package supervisor

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Options configure a Supervisor.
type Options struct {
	Environment Environment
	Unit        Unit // nil: the process ends with its last request, and no other takes over
	Log         hclog.Logger

	DrainTimeout time.Duration // how long requests may take to end after a signal to end
	Watchdog     time.Duration // within which systemd must hear that the process is well; zero: it does not wait for that
}

// Supervisor serves. It is made by New.
type Supervisor struct {
	options     Options
	env         Environment
	log         hclog.Logger
	served      *served
	pauses      *pauses
	admin       *operators
	succession  *succession
	confinement *confinement
	systemd     *notifier

	reloadFailed atomic.Bool // the last reload changed nothing, so the config that is served is not the file's
	draining     atomic.Bool
	judging      chan struct{} // has room for one: a judgment that is under way, or the end of judgments
}

// New returns a Supervisor that serves nothing yet.
func New(o Options) *Supervisor {
	store := sessionlock.NewLocal()
	local := sessionlock.NewManager(store)
	s := &Supervisor{
		options:     o,
		env:         o.Environment,
		log:         o.Log,
		pauses:      &pauses{unit: o.Unit, log: o.Log},
		admin:       &operators{env: o.Environment, log: o.Log},
		succession:  &succession{unit: o.Unit, log: o.Log, store: store, locks: local},
		confinement: &confinement{env: o.Environment, log: o.Log},
		systemd:     &notifier{env: o.Environment, log: o.Log},
		judging:     make(chan struct{}, 1),
	}
	s.served = &served{env: s.env, log: s.log, local: local, pauses: s.pauses, admin: s.admin}
	s.served.life, s.served.end = context.WithCancel(context.Background())
	return s
}

// Start begins to serve c, with the locks and the pauses of the process before this one. With an error nothing is
// served. It is called once.
func (s *Supervisor) Start(c *config.Config) error {
	s.warn(c)
	if err := s.env.Judge(c); err != nil {
		return err
	}
	s.pauses.load()
	s.succession.takeOver() // before the first request, which might be of a session that the other process serves
	if err := s.served.apply(c); err != nil {
		return err
	}
	s.confinement.begin(c)
	return nil
}

// Run serves until a signal ends it. SIGHUP reloads the config. Any other signal drains, and one more exits at once.
// Run returns when no request is left, with an error if some had to be broken off. It is called once, after Start.
func (s *Supervisor) Run(signals <-chan os.Signal) error {
	done := make(chan struct{})
	defer close(done)
	s.systemd.ready(s.status())
	if s.options.Watchdog > 0 {
		go s.systemd.feedWatchdog(s.options.Watchdog, s.health, s.status, done)
	}
	sig := s.reloadUntilEnd(signals)
	defer s.endJudging()
	s.draining.Store(true)
	s.systemd.stopping()
	s.log.Info("draining", "signal", sig, "timeout_ms", s.options.DrainTimeout.Milliseconds())
	go s.exitAtTheNext(signals, done)
	return s.drain(done)
}

// warn logs what an operator should know of a config that is going to be served.
func (s *Supervisor) warn(c *config.Config) {
	for _, line := range c.Warnings.Lines() {
		s.log.Warn(line)
	}
}

// health returns what is wrong with the process itself. It may be called concurrently.
func (s *Supervisor) health() error { return checkHealth(s.served) }

// status is the line that `systemctl status` shows.
func (s *Supervisor) status() string {
	line := fmt.Sprintf("STATUS=gates: %d, connections: %d", len(s.served.current().gates), s.Conns())
	if s.reloadFailed.Load() {
		line += "; config file invalid, still serving the previous one"
	}
	return line
}

// Conns returns how many conns all gates have. It may be called concurrently.
func (s *Supervisor) Conns() int { return s.served.conns() }

// State is what is served, for operators.
type State struct {
	Gates []NamedGate          // in the order of their names
	Local *sessionlock.Manager // the locks in the process

	Config       *config.Config // that is served; nil: none yet
	Since        time.Time      // it is served
	ReloadFailed bool           // a later config was refused
	Draining     bool           // no new connections are accepted
	Previous     bool           // the process before this one still serves requests
}

// NamedGate is a gate that is served.
type NamedGate struct {
	Name  string
	Gate  Gate
	Store Store // that its locks are in; nil: they are in the process
	Gone  bool  // no web server can connect: its socket was removed or replaced
}

// State returns what is served now. It may be called concurrently.
func (s *Supervisor) State() State {
	now := s.served.current()
	v := State{
		Local: s.served.local, Config: now.config, Since: now.since,
		ReloadFailed: s.reloadFailed.Load(), Draining: s.draining.Load(), Previous: s.succession.previous(),
	}
	for _, name := range slices.Sorted(maps.Keys(now.gates)) {
		g := NamedGate{Name: name, Gate: now.gates[name].gate}
		g.Gone = slices.ContainsFunc(now.gates[name].listeners, s.env.IsGone)
		if of := now.gates[name].store; of != nil {
			g.Store = of.Store
		}
		v.Gates = append(v.Gates, g)
	}
	return v
}
