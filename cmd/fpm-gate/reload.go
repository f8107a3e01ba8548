package main

import (
	"os"
	"syscall"

	"github.com/fpm-gate/fpm-gate/config"
)

// loaded is the result of reading a config.
type loaded struct {
	config *config.Config // nil: there is no file to read
	err    error
}

// reloadUntilEnd reloads the config on each SIGHUP. It returns the first other signal. A config is read in the
// background: however long that takes, the process can be stopped.
func (s *server) reloadUntilEnd(f *serveFlags, signals <-chan os.Signal) os.Signal {
	var loading chan loaded // nil: no config is being read
	again := false          // another SIGHUP came while a config was being read
	begin := func() {
		loading, again = make(chan loaded, 1), false
		s.notifyReloading()
		go func(done chan<- loaded) { done <- s.read(f) }(loading)
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
				again = true
			}
		case l := <-loading:
			s.setReloadFailed(!s.reload(l))
			s.notifyReady()
			loading = nil
			if again {
				begin()
			}
		}
	}
}

// read reads the config and judges it.
func (s *server) read(f *serveFlags) (l loaded) {
	if f.config == "" {
		return l
	}
	if l.config, l.err = f.load(); l.err == nil {
		l.err = s.reach(f, l.config)
	}
	if l.err == nil {
		l.err = judge(l.config)
	}
	return l
}

// reload serves the config of l, and reports whether it succeeded. An invalid config, or one that cannot be served,
// changes nothing.
func (s *server) reload(l loaded) bool {
	const cannotApply = "cannot apply config, keeping the running one"
	c := l.config
	switch {
	case c == nil && l.err == nil:
		s.log.Warn("nothing to reload: there is no config file")
		return true
	case c == nil:
		report(s.log.sink, l.err)
		s.log.Error("invalid config, keeping the running one", "error", l.err)
		s.explainReach(l.err)
		return false
	case l.err != nil:
		s.log.Error(cannotApply, "error", l.err)
		s.explainReach(l.err)
		return false
	}
	s.warn(c)
	if c.Landlock != s.confinable {
		s.log.Warn("a change of landlock takes a restart", "landlock", c.Landlock)
	}
	if err := s.apply(c); err != nil {
		s.log.Error(cannotApply, "error", err)
		return false
	}
	s.log.configure(c.Log)
	s.log.Info("reloaded", "gates", len(c.Gates))
	return true
}
