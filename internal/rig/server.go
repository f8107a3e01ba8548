package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNotRunning is returned when a server that must run does not.
var ErrNotRunning = errors.New("not running")

const (
	startTimeout = time.Minute      // until a server answers, on a busy machine too
	stopTimeout  = 30 * time.Second // between the stop signal and SIGKILL
)

// Server is a program of a rig, with all processes that it has started. Its methods may be called at the same time.
type Server struct {
	Name string
	Addr Addr // where it listens; the first address if there are several

	rig    *Rig
	dir    string
	listen []Addr // all its addresses, Addr first
	cmd    command

	// removeSockets: the program leaves its Unix sockets when it is killed, and does not start while they are there.
	removeSockets bool
	// ready is a stronger check than an accepted connection; may be nil.
	ready func(context.Context) error

	mu  sync.Mutex
	run *process // nil before the first start
}

// command is how a server's program is started.
type command struct {
	path string
	args []string
	env  []string // in addition to the rig's own environment
	// unprivileged: the program refuses to run as root, or is to run as another user.
	unprivileged bool
	// stop is the signal that ends the program; SIGTERM if zero.
	stop syscall.Signal
}

// Start starts a stopped server again, on the same addresses and with the same configuration file. It returns when the
// server answers; if it ends instead, the error holds its log's last lines.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil && !s.run.hasExited() {
		return fmt.Errorf("start %s: it runs already, as process %d", s.Name, s.run.pid)
	}
	if s.rig.isClosed() { // asked under s.mu, which Close waits for to stop s
		return fmt.Errorf("start %s: the rig is closed", s.Name)
	}
	if s.removeSockets {
		s.removeStale()
	}
	run, err := spawn(s.cmd, s.dir, s.LogFile())
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	s.run = run
	if err := s.await(run); err != nil {
		run.kill()
		return fmt.Errorf("start %s: %w%s", s.Name, err, tail(s.Log()))
	}
	return nil
}

func (s *Server) removeStale() {
	for _, a := range s.listen {
		if a.Network == "unix" {
			os.Remove(a.Address)
		}
	}
}

// await waits until the server answers on all its addresses.
func (s *Server) await(run *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := s.answers(ctx)
		if err == nil && !run.hasExited() {
			return nil
		}
		select {
		case <-run.exited:
			return fmt.Errorf("it ended: %s", run.state())
		case <-ctx.Done():
			return fmt.Errorf("it does not answer within %s: %w", startTimeout, err)
		case <-time.After(pause):
		}
	}
}

func (s *Server) answers(ctx context.Context) error {
	var dialer net.Dialer
	for _, a := range s.listen {
		nc, err := dialer.DialContext(ctx, a.Network, a.Address)
		if err != nil {
			return err
		}
		nc.Close()
	}
	if s.ready != nil {
		return s.ready(ctx)
	}
	return nil
}

// Stop signals the server to end, usually by SIGTERM, and kills what is left of it after a few seconds, which is an
// error. When it returns, all its processes are gone. Stopping a server that does not run is no error.
func (s *Server) Stop() error {
	run := s.current()
	if run == nil || run.hasExited() {
		return nil
	}
	if err := run.end(cmp.Or(s.cmd.stop, syscall.SIGTERM), stopTimeout); err != nil {
		return fmt.Errorf("stop %s: %w", s.Name, err)
	}
	return nil
}

// Restart is Stop and Start.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

// Kill ends all processes of the server with SIGKILL, as a crash of its host would, and waits until they are gone.
func (s *Server) Kill() {
	if run := s.current(); run != nil {
		run.kill()
	}
}

// Signal sends a signal to the server's main process.
func (s *Server) Signal(sig syscall.Signal) error {
	run := s.current()
	if run == nil {
		return fmt.Errorf("signal %s: %w", s.Name, ErrNotRunning)
	}
	if err := run.signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", s.Name, err)
	}
	return nil
}

// Freeze stops all processes of the server where they are, until Thaw.
func (s *Server) Freeze() error { return s.signalGroup(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw() error { return s.signalGroup(syscall.SIGCONT) }

func (s *Server) signalGroup(sig syscall.Signal) error {
	run := s.current()
	if run == nil {
		return fmt.Errorf("signal %s: %w", s.Name, ErrNotRunning)
	}
	if err := run.signalGroup(sig); err != nil {
		return fmt.Errorf("signal %s: %w", s.Name, err)
	}
	return nil
}

// Pid returns the process id of the server's main process, 0 before its first start.
func (s *Server) Pid() int {
	if run := s.current(); run != nil {
		return run.pid
	}
	return 0
}

// Exited returns a channel that is closed when the server as it was started last has ended, for whatever reason.
func (s *Server) Exited() <-chan struct{} {
	if run := s.current(); run != nil {
		return run.exited
	}
	return nil
}

// ExitCode returns the exit code of a server that has ended, and −1 while it runs and after a signal has ended it.
func (s *Server) ExitCode() int {
	run := s.current()
	if run == nil || !run.hasExited() {
		return -1
	}
	return run.state().ExitCode()
}

// LogFile returns the path of the server's log: its stdout, its stderr and its error log, of all its starts.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "log") }

// Log returns the server's log so far.
func (s *Server) Log() string {
	log, err := os.ReadFile(s.LogFile())
	if err != nil {
		return ""
	}
	return string(log)
}

func (s *Server) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// tail returns the last lines of a log as the end of an error message.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if lines[0] == "" {
		return "; its log is empty"
	}
	lines = lines[max(0, len(lines)-10):]
	return "; its log ends:\n\t" + strings.Join(lines, "\n\t")
}
