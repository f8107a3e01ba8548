package supervisor

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
)

// loaded is the result of reading a config.
type loaded struct {
	config *config.Config // nil: it is invalid, or there is no file to read
	err    error
}

// reloadUntilEnd reloads the config on each SIGHUP. It returns the first other signal. A config is read in the
// background: however long that takes, the process can be stopped.
func (s *Supervisor) reloadUntilEnd(signals <-chan os.Signal) os.Signal {
	var loading chan loaded // nil: no config is being read
	again := false          // another SIGHUP came while a config was being read
	begin := func() {
		loading, again = make(chan loaded, 1), false
		s.systemd.reloading()
		go func(done chan<- loaded) { done <- s.read() }(loading)
	}
	for {
		select {
		case sig := <-signals:
			switch {
			case sig != syscall.SIGHUP:
				return sig
			case loading == nil:
				begin()
			default:
				again = true // the file may have changed since it was opened; several such signals are one
			}
		case l := <-loading:
			s.reloadFailed.Store(!s.reload(l))
			s.systemd.ready(s.status())
			loading = nil
			if again {
				begin()
			}
		}
	}
}

// read reads the config and judges it.
func (s *Supervisor) read() (l loaded) {
	if l.config, l.err = s.env.Load(); l.err == nil {
		l.err = s.confinement.reach(l.config)
	}
	if l.err == nil {
		l.err = s.judge(l.config)
	}
	return l
}

// judge judges a config, unless the process ends.
func (s *Supervisor) judge(c *config.Config) error {
	select {
	case s.judging <- struct{}{}:
		defer func() { <-s.judging }()
		return s.env.Judge(c)
	default:
		return errors.New("the process ends")
	}
}

// judgeTimeout is how long the end of the process waits for a judgment.
const judgeTimeout = time.Second

// endJudging waits for the judgment that is under way, so that the process leaves no trial socket in a folder. No other
// one begins. A judgment that hangs is left alone.
func (s *Supervisor) endJudging() {
	select {
	case s.judging <- struct{}{}:
	case <-time.After(judgeTimeout):
	}
}

// reload serves the config of l, and reports whether it succeeded. An invalid config, or one that cannot be served,
// changes nothing.
func (s *Supervisor) reload(l loaded) bool {
	const cannotApply = "cannot apply config, keeping the running one"
	c := l.config
	switch {
	case errors.Is(l.err, ErrNoFile):
		s.log.Warn("nothing to reload: there is no config file")
		return true
	case c == nil:
		s.env.Report(l.err) // with all that is wrong in the file; the log has it on one line
		s.log.Error("invalid config, keeping the running one", "error", l.err)
		s.confinement.explain(l.err)
		return false
	case l.err != nil:
		s.log.Error(cannotApply, "error", l.err)
		s.confinement.explain(l.err)
		return false
	}
	s.warn(c)
	s.confinement.warn(c)
	if err := s.served.apply(c); err != nil {
		s.log.Error(cannotApply, "error", err)
		return false
	}
	s.env.ConfigureLog(c.Log)
	s.log.Info("reloaded", "gates", len(c.Gates))
	return true
}
