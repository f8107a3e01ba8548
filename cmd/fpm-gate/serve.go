package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/handover"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	config           string
	listen, upstream string
	unit             string
	drain            time.Duration
}

// drainGrace is how long scripts may still run when the time to drain is over and the waiters have been sent away.
const drainGrace = 2 * time.Second

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
		"where the web server connects, instead of a config: unix:/path or host:port (`address`)")
	cmd.Flags().StringVar(&f.upstream, "upstream", "", "where PHP-FPM listens, with --listen (`address`)")
	cmd.Flags().StringVar(&f.unit, "unit", "",
		"the systemd unit that this is: a restart does not wait for running requests (`name`)")
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

// serve serves in this process or, for a unit of systemd, in one that it starts.
func (f *serveFlags) serve() error {
	if f.unit == "" {
		return f.run(nil)
	}
	u, err := joinUnit(f.unit)
	if err != nil {
		return failed(err)
	}
	if u == nil {
		return f.supervise()
	}
	return f.run(u)
}

// run serves until a signal ends it. u is nil if this process is not the one that serves of a unit.
func (f *serveFlags) run(u *unit) error {
	passed, started := takeSockets(), false
	defer func() {
		if !started {
			passed.refuse()
		}
	}()
	c, err := f.load()
	if err != nil {
		return err
	}
	setProcessors()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGHUP) // before anything listens
	signal.Ignore(syscall.SIGPIPE)                                                           // the log may lose its reader
	s := newServer(c)
	defer s.log.sink.flush()
	s.sockets, s.unit = passed, u
	s.warn(c)
	if err := judge(c); err != nil {
		return failed(err)
	}
	if u != nil {
		if file, err := u.pausesFile(); err == nil { // else takeOver logs it
			s.pauses.load(file, s.log)
		}
		s.takeOver()
		go u.watch(signals)
	}
	if err := s.apply(c); err != nil {
		return failed(err)
	}
	started = true
	s.confine(f, c)
	go new(memory).watch(s.conns)
	s.log.Info("serving", "version", versionText(), "gates", len(c.Gates))
	s.notifyReady()
	go s.feedWatchdog()
	sig := s.reloadUntilEnd(f, signals)
	s.notify(daemon.SdNotifyStopping, "STATUS=draining")
	s.log.Info("draining", "signal", sig, "timeout_ms", f.drain.Milliseconds())
	go s.exitAtTheNext(signals)
	return failed(s.drain(f.drain))
}

// sameSignal is how long after a signal another one may be the same: systemctl kill sends one to each process of a
// unit, and the main process passes its own on.
const sameSignal = time.Second

// exitAtTheNext exits the process at the next signal to end it.
func (s *server) exitAtTheNext(signals <-chan os.Signal) {
	first := time.Now()
	for sig := range signals {
		if sig == syscall.SIGHUP || s.unit != nil && time.Since(first) < sameSignal {
			continue
		}
		s.log.Warn("exiting immediately", "signal", sig)
		s.log.sink.flush()
		os.Exit(exitFailed)
	}
}

// setProcessors leaves most processors to PHP. A request costs the gate some ten microseconds and PHP thousands; on
// fewer processors, the gate's threads have less to do with each other. GOMAXPROCS in the environment goes first.
func setProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/4))
	}
}

// server is the gates that are served, and what they share.
type server struct {
	log    *logs
	local  *sessionlock.Manager
	store  *sessionlock.Local // of local
	shared *sharedStore       // nil: no gate needs one
	taken  *handover.Taken    // locks of the process before this one; nil: there was none
	pauses pauses             // of gates
	unit   *unit              // nil: this process is not the one that serves of a unit
	silent atomic.Bool        // systemd hears of the next process now

	sockets sockets // from systemd

	confinable bool           // the config of the start has landlock = true
	rules      landlock.Rules // what this process may open; nil: all that its user may

	mu           sync.Mutex // guards these against conns and status; only the goroutine that serves signals writes them
	gates        map[string]*serving
	reloadFailed bool      // the last reload changed nothing
	applied      time.Time // when the config was taken that is served
	draining     bool

	admin    *adminServer
	watching watching // of PHP's sessions

	removed sync.WaitGroup  // gates and stores that a reload has removed, and that drain
	life    context.Context // of removed: it ends when the time to drain all is over
	end     context.CancelFunc
}

// serving is a gate that listens.
type serving struct {
	config  *config.Gate
	gate    *gate.Gate
	store   *sharedStore         // nil: its locks are in the process
	watcher sessionwatch.Watcher // nil: its sessions are not watched

	// stopped is why the gate has stopped accepting by itself. It is the gate's, whatever its config.
	stopped *atomic.Pointer[error]
}

// leave says that no request uses the gate's store any more, nor its watcher.
func (g *serving) leave() {
	if g.store != nil {
		g.store.users.Done()
	}
	if g.watcher != nil {
		g.watcher.Close()
	}
}

func newServer(c *config.Config) *server {
	life, end := context.WithCancel(context.Background())
	store := sessionlock.NewLocal()
	s := &server{
		log:   newLogs(c),
		local: sessionlock.NewManager(store),
		store: store,
		gates: make(map[string]*serving),
		life:  life,
		end:   end,
	}
	s.admin = newAdminServer(s)
	s.watching.log = s.log
	return s
}

// warn logs what an operator should know of a config that is going to be served.
func (s *server) warn(c *config.Config) {
	for _, line := range c.Warnings.Lines() {
		s.log.Warn(line)
	}
}

// setReloadFailed notes whether the last reload failed, so that the config that is served is not the file's.
func (s *server) setReloadFailed(failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reloadFailed = failed
}

// apply serves the gates of c: all listeners that are new are opened first, so that c is served as a whole or,
// with an error, not at all. A gate that stays keeps its requests and, if it listens where it did, its listener.
func (s *server) apply(c *config.Config) error {
	shared, err := openShared(c, s.shared, s.log)
	if err != nil {
		return err
	}
	opened, forOperators, err := s.open(c)
	if err != nil {
		if shared != nil && shared != s.shared {
			shared.close(s.log)
		}
		return err
	}
	s.replaceShared(shared, c)
	next, kept := make(map[string]*serving), make(map[*gate.Gate]bool)
	for _, g := range c.Gates {
		next[g.Name] = s.serve(c, g, opened[g.Name])
		kept[next[g.Name].gate] = true // under another name, it may be
	}
	for _, old := range s.gates {
		if !kept[old.gate] {
			s.remove(old)
		}
	}
	s.mu.Lock()
	s.gates, s.applied = next, time.Now()
	s.mu.Unlock()
	s.admin.serve(s, c.Admin, forOperators)
	s.sockets.warnUnused(func(name string) bool {
		return s.at(netaddr.Addr{Network: "systemd", Address: name}) != nil
	}, s.log)
	return nil
}

// open opens the listeners of c that are not open yet, those of gates and the admin's: all of them or, with an
// error, none.
func (s *server) open(c *config.Config) (map[string][]net.Listener, net.Listener, error) {
	opened := make(map[string][]net.Listener)
	forOperators, err := s.admin.open(c.Admin)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range c.Gates {
		if old := s.at(g.Listen); old != nil {
			continue
		}
		l, err := listen(g, s.sockets)
		if err != nil {
			for _, l := range opened {
				closeAll(l)
			}
			if forOperators != nil {
				_ = forOperators.Close()
			}
			return nil, nil, err
		}
		opened[g.Name] = l
	}
	return opened, forOperators, nil
}

// replaceShared makes next the store of the gates that are configured from now on. The one before goes when nobody
// uses it any more.
func (s *server) replaceShared(next *sharedStore, c *config.Config) {
	old := s.shared
	s.shared = next
	if next != nil {
		next.store.Relabel(sharedBy(c))
	}
	if old == nil || old == next {
		return
	}
	old.store.Retire()
	s.removed.Go(func() { old.close(s.log) })
}

// conns is how many conns all gates have.
func (s *server) conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, g := range s.gates {
		n += g.gate.Conns()
	}
	return n
}

// at finds the gate that accepts on an address.
func (s *server) at(a netaddr.Addr) *serving {
	for _, g := range s.gates {
		if g.config.Listen == a && g.stopped.Load() == nil {
			return g
		}
	}
	return nil
}

// serve starts a gate on its listeners; or, without any, changes that which listens there already.
func (s *server) serve(c *config.Config, g *config.Gate, listeners []net.Listener) *serving {
	n := &serving{config: g, watcher: s.watching.watcher(g)}
	o := gateOptions(c, g)
	o.Watcher, o.Workers = n.watcher, s.watching.inWorkers(g)
	o.Unlock = s.watching.unlocker(g)
	o.Meter = s.admin.Meters(g.Name)
	o.Paused = func(until time.Time) { s.pauses.note(g.Name, until) }
	o.Locks = s.local
	if g.Lock.Store == config.StoreMemcached {
		n.store = s.shared
		n.store.users.Add(1)
		o.Locks, o.FindHolder, o.SharedLocks = n.store.locks, n.store.holder, true
	}
	if listeners == nil {
		s.reconfigure(n, o)
		return n
	}
	n.gate, n.stopped = gate.New(o, s.log.Named(g.Name)), new(atomic.Pointer[error])
	if left := s.pauses.left(g.Name); left > 0 {
		n.gate.Pause(left)
	}
	for _, l := range listeners {
		go func() {
			if err := n.gate.Serve(l); err != nil {
				err = fmt.Errorf("gate %q stopped accepting: %w", g.Name, err)
				s.log.Error("gate ended", "gate", g.Name, "error", err)
				n.stopped.Store(&err)
				_ = l.Close() // a reload may listen there again
			}
		}()
	}
	s.log.Info("listening", "gate", g.Name, "listen", g.Listen, "upstream", g.Upstream.Addresses)
	return n
}

// reconfigure makes n of the gate that listens where it should already.
func (s *server) reconfigure(n *serving, o gate.Options) {
	old := s.at(n.config.Listen)
	n.gate, n.stopped = old.gate, old.stopped
	warnMoved(s.log, old, n)
	ended := n.gate.Configure(o)
	s.removed.Go(func() {
		<-ended
		old.leave()
	})
	if n.config.Listen.Network == "unix" {
		if err := setAccess(n.config, n.config.Listen.Address); err != nil {
			s.log.Error("mode and owner of the socket stay as they were", "gate", n.config.Name, "error", err)
		}
	}
}

// remove drains a gate that the config does not have any more, beside those that it has.
func (s *server) remove(g *serving) {
	s.log.Info("gate removed from the config, draining it", "gate", g.config.Name)
	s.removed.Go(func() {
		defer g.leave()
		ctx, cancel := context.WithTimeout(s.life, time.Minute)
		defer cancel()
		_ = g.gate.Shutdown(ctx, drainGrace)
	})
}

// shutdown drains all gates, and waits for those that a reload has removed.
func (s *server) shutdown(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	defer context.AfterFunc(ctx, s.end)()
	defer s.admin.stop()
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	var all sync.WaitGroup
	all.Go(s.removed.Wait)
	all.Go(func() { s.awaitTaken(ctx) })
	errs := make(chan error, len(s.gates))
	for name, g := range s.gates {
		all.Go(func() {
			defer g.leave()
			if err := g.gate.Shutdown(ctx, drainGrace); err != nil {
				errs <- fmt.Errorf("gate %q: requests still running after %v", name, timeout+drainGrace)
			}
		})
	}
	all.Wait()
	if s.shared != nil {
		s.shared.close(s.log)
	}
	close(errs)
	var joined error
	for err := range errs {
		joined = errors.Join(joined, err)
	}
	if joined == nil {
		s.log.Info("all requests are done")
	}
	return joined
}
