package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// checkHealth tries what every request needs, without anything outside the process: the gates accept and can be asked,
// and the lock manager gives a lock and takes it back. It does not return if one of their mutexes is never free again.
func checkHealth(s *served) error {
	s.conns() // takes each gate's mutex
	for _, g := range s.current().gates {
		if err := g.stopped.Load(); err != nil {
			return *err
		}
	}
	l, err := s.local.Acquire(context.Background(), watchdogKey, watchdog{}, sessionlock.Policy{})
	if err != nil && !errors.Is(err, sessionlock.ErrMaxWait) { // another check holds it at the same time
		return fmt.Errorf("acquire a lock: %w", err)
	}
	if err == nil {
		l.Release()
	}
	s.local.Snapshot() // takes the mutex of each session's shard
	return nil
}

// watchdog takes a lock as a request does.
type watchdog struct{}

// Describe describes the watchdog to an operator who looks in that moment.
func (watchdog) Describe() sessionlock.Description {
	return sessionlock.Description{Path: "the watchdog of fpm-gate"}
}

// watchdogKey is of no session: keys of sessions are hashes.
var watchdogKey sessionlock.Key
