package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// notify tells systemd how the service stands. Where nobody listens, in a shell say, it does nothing.
func (s *server) notify(state ...string) {
	var err error
	switch text := strings.Join(state, "\n"); {
	case s.silent.Load():
	case s.unit != nil:
		err = s.unit.notify(text)
	default:
		_, err = daemon.SdNotify(false, text)
	}
	if err != nil {
		s.log.Debug("sd_notify failed", "error", err)
	}
}

// notifyReloading says that a reload has begun. Type=notify-reload wants to know when, by a clock that systemd has too.
func (s *server) notifyReloading() {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // never fails
	usec := now.Nano() / int64(time.Microsecond/time.Nanosecond)
	s.notify(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", usec))
}

// notifyReady says that the service serves.
func (s *server) notifyReady() { s.notify(daemon.SdNotifyReady, s.status()) }

// status is the line that `systemctl status` shows.
func (s *server) status() string {
	s.mu.Lock()
	gates, failed := len(s.gates), s.reloadFailed
	s.mu.Unlock()
	line := fmt.Sprintf("STATUS=gates: %d, connections: %d", gates, s.conns())
	if failed {
		line += "; config file invalid, still serving the previous one"
	}
	return line
}

// feedWatchdog tells systemd, thrice in WatchdogSec=, that the server is well. When it is not, or when asking it does
// not come to an end, systemd hears nothing: it has the process dump its goroutines, and starts another one.
func (s *server) feedWatchdog() {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("no watchdog", "error", err)
	}
	if interval <= 0 {
		return
	}
	for range time.Tick(interval / 3) {
		if err := s.health(); err != nil {
			s.log.Error("health check failed, withholding the watchdog ping", "error", err)
			continue
		}
		s.notify(daemon.SdNotifyWatchdog, s.status())
	}
}

// watchdog takes a lock as a request does.
type watchdog struct{}

// Describe tells an operator who looks in that moment.
func (watchdog) Describe() sessionlock.Description {
	return sessionlock.Description{Path: "the watchdog of fpm-gate"}
}

// watchdogKey is of no session: keys of sessions are hashes.
var watchdogKey sessionlock.Key

// health tries what every request needs, and asks nobody outside: the gates accept and can be asked, and the lock
// manager gives a lock and takes it back. It does not return if one of their mutexes is never free again.
func (s *server) health() error {
	s.conns() // takes each gate's mutex
	if err := s.stopped(); err != nil {
		return err
	}
	l, err := s.local.Acquire(context.Background(), watchdogKey, watchdog{}, sessionlock.Policy{})
	if err != nil && !errors.Is(err, sessionlock.ErrMaxWait) { // who else asks at the same time holds it
		return fmt.Errorf("acquire a lock: %w", err)
	}
	if err == nil {
		l.Release()
	}
	s.local.Snapshot() // takes the mutex of each session's shard
	return nil
}

// stopped returns why one of the gates has stopped accepting by itself.
func (s *server) stopped() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gates {
		if err := g.stopped.Load(); err != nil {
			return *err
		}
	}
	return nil
}
