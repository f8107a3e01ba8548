package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/handover"
)

const (
	// shortDrain is how long requests may take to end before the next process is started. Nearly all do.
	shortDrain = 100 * time.Millisecond
	// overdue is how long after its last deadline a process that has handed over is ended, whatever it waits for.
	overdue = 5 * time.Second
)

// takeOver takes the locks of the process that served before this one and has not ended yet. Without them requests of
// one session could run in both, so it has to be done before anything is served. Usually there is no such process.
func (s *server) takeOver() {
	path, err := s.unit.socket()
	if err != nil {
		s.log.Warn("locks cannot be taken over", "error", err)
		return
	}
	nc, err := net.Dial("unix", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return // none is there
	}
	if err == nil {
		s.taken, err = handover.Take(nc, s.local)
	}
	if err != nil {
		s.log.Error("locks of the previous process cannot be taken over, its sessions are not waited for", "error", err)
		return
	}
	s.log.Info("the previous process still serves requests, its locks are taken over", "locks", s.taken.Len())
}

// awaitTaken waits for the end of the process before this one. While it serves, this one holds its locks against the
// next.
func (s *server) awaitTaken(ctx context.Context) {
	if s.taken == nil {
		return
	}
	select {
	case <-s.taken.Done():
		return
	case <-ctx.Done():
	}
	select {
	case <-s.taken.Done():
	case <-time.After(drainGrace):
	}
}

// drain ends the server. At a restart of its unit, the next process starts as soon as it is clear that requests take
// longer, and serves while this one finishes them. If that cannot be done, the next process waits for the last request.
func (s *server) drain(timeout time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- s.shutdown(timeout) }()
	if s.unit != nil {
		select {
		case err := <-done:
			return err
		case <-time.After(shortDrain):
		}
		if err := s.handOver(timeout); err != nil {
			s.log.Warn("cannot hand over, the next process starts when all requests are done", "error", err)
		}
	}
	return <-done
}

// handOver leaves the unit to the next process, if there is going to be one.
func (s *server) handOver(timeout time.Duration) error {
	if restarts, err := s.unit.restarts(); err != nil || !restarts {
		return err
	}
	for s.listens() {
		time.Sleep(time.Millisecond) // shutdown has been called, and closes all listeners first
	}
	l, err := listenForSuccessor(s.unit)
	if err != nil {
		return err
	}
	s.admin.stop() // the next process listens there
	s.silent.Store(true)
	s.pauses.handOver(s.gates)
	s.log.Info("handing over to the next process, this one ends when its requests have")
	handover.NewOffer(l, s.store, s.local)
	time.AfterFunc(timeout+drainGrace+overdue, func() {
		s.log.Error("this process should have ended, exiting immediately")
		s.log.sink.flush()
		os.Exit(exitFailed)
	})
	return s.unit.release()
}

// listens reports whether a gate still accepts.
func (s *server) listens() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.gates {
		if g.gate.Listening() {
			return true
		}
	}
	return false
}

// listenForSuccessor listens where the next process of the unit looks. A process before this one that still serves may
// listen there, too: it has handed its locks to this one.
func listenForSuccessor(u *unit) (net.Listener, error) {
	path, err := u.socket()
	if err != nil {
		return nil, err
	}
	own := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(own)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: own})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(own, 0o600); err == nil {
		err = os.Rename(own, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(own)
		return nil, err
	}
	return l, nil
}
