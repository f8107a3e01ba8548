package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/internal/supervisor"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	config           string
	listen, upstream string
	unit             string
	drain            time.Duration
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the gates of a config",
		Long: `Serve the gates of a config, or one gate with all defaults.

SIGTERM, SIGQUIT and SIGINT drain: no new connections are accepted, running requests
finish, and those still waiting after --drain-timeout get a 503. A second one exits
immediately. SIGHUP reads the config again: an invalid one is reported and ignored.`,
		Example: `  fpm-gate serve --config /etc/fpm-gate/fpm-gate.hcl
  fpm-gate serve --listen unix:/run/fpm-gate/www.sock --upstream unix:/run/php/php-fpm.sock`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return f.serve() },
	}
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "the config `file`")
	_ = cmd.MarkFlagFilename("config", "hcl")
	cmd.Flags().StringVar(&f.listen, "listen", "",
		"the `address` where the web server connects, instead of a config: unix:/path or host:port")
	cmd.Flags().StringVar(&f.upstream, "upstream", "", "the `address` of PHP-FPM, with --listen")
	cmd.Flags().StringVar(&f.unit, "unit", "",
		"the `name` of the systemd unit that this is: a restart does not wait for running requests")
	cmd.Flags().DurationVar(&f.drain, "drain-timeout", 30*time.Second, "how long requests may take to end after SIGTERM")
	return cmd
}

// load reads the config that the flags say.
func (f *serveFlags) load() (*config.Config, error) {
	switch {
	case f.config != "" && f.listen == "" && f.upstream == "":
		return config.Load(f.config)
	case f.config == "" && f.listen != "" && f.upstream != "":
		return config.Default(f.listen, f.upstream)
	}
	return nil, &usageError{errors.New("--config FILE is required, or --listen ADDRESS with --upstream ADDRESS")}
}

// serve serves in this process or, for a unit of systemd, in one that it starts. Both of a unit have the same command
// line; joinUnit tells which of the two this one is.
func (f *serveFlags) serve() error {
	if f.unit == "" {
		return f.run(nil)
	}
	u, err := joinUnit(f.unit)
	if err != nil {
		return failed(err)
	}
	if u == nil {
		return supervise(f.unit, f.drain)
	}
	return f.run(u)
}

// run serves until a signal ends it. u is nil if this process is not the one that serves of a unit.
func (f *serveFlags) run(u *unit) error {
	// Before the config is read: whatever keeps this process from serving, no web server is to wait for it in a socket.
	passed, started := takeSockets(), false
	defer func() {
		if !started {
			passed.refuse()
		}
	}()
	c, err := f.load()
	if err != nil {
		return err // as it is, for exit code 2: systemd does not try again what only another config can mend
	}
	setProcessors()
	// Notify drops a signal that finds no room. A reload takes its time, and an end must not get lost behind it.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGHUP) // before anything listens
	signal.Ignore(syscall.SIGPIPE)                                                           // the log may lose its reader
	e := &environment{file: f.config, load: f.load, log: newLogs(c), sockets: passed, unit: u}
	defer e.log.sink.flush()
	e.watching.log = e.log
	s := newSupervisor(e, f.drain)
	if u != nil {
		go u.watch(signals)
	}
	if err := s.Start(c); err != nil {
		return failed(err)
	}
	started = true
	go new(memory).watch(s.Conns)
	e.log.Info("serving", "version", versionText(), "gates", len(c.Gates))
	return failed(s.Run(signals))
}

// newSupervisor returns the supervisor of e, and gives e the admin that looks at it. The two need each other: the admin
// shows the supervisor's gates, and each gate is made with a meter of the admin's. So no gate is made before Start.
func newSupervisor(e *environment, drain time.Duration) *supervisor.Supervisor {
	o := supervisor.Options{Environment: e, Log: e.log, DrainTimeout: drain}
	if e.unit != nil {
		o.Unit = e.unit
	}
	var err error
	if o.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		e.log.Warn("no watchdog", "error", err)
	}
	s := supervisor.New(o)
	e.admin = newAdmin(e.log, s)
	return s
}

// setProcessors leaves most processors to PHP. A request costs the gate some ten microseconds and PHP thousands; on
// fewer processors, the gate's threads have less to do with each other. GOMAXPROCS in the environment goes first.
func setProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/4))
	}
}
