package supervisor

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// sameSignal is how long after a signal another one may be the same: systemctl kill sends one to each process of a
	// unit, and the main process passes its own on.
	sameSignal = time.Second
	// shortDrain is how long requests may take to end before the next process is started. Nearly all do.
	shortDrain = 100 * time.Millisecond
	// overdue is how long after its last deadline a process that has handed over is ended, whatever it waits for.
	overdue = 5 * time.Second
)

// exitAtTheNext exits the process at the next signal to end it, until done is closed.
func (s *Supervisor) exitAtTheNext(signals <-chan os.Signal, done <-chan struct{}) {
	first := time.Now()
	for {
		select {
		case <-done:
			return
		case sig := <-signals:
			if sig == syscall.SIGHUP || s.options.Unit != nil && time.Since(first) < sameSignal {
				continue
			}
			s.log.Warn("exiting immediately", "signal", sig)
			s.env.Exit()
			return
		}
	}
}

// drain ends the server. At a restart of its unit, the next process starts as soon as it is clear that requests take
// longer, and serves while this one finishes them. If that cannot be done, the next process waits for the last request.
// done is closed when this process has done its part.
func (s *Supervisor) drain(done <-chan struct{}) error {
	ended := make(chan error, 1)
	go func() { ended <- s.shutdown() }()
	if s.options.Unit != nil {
		select {
		case err := <-ended:
			return err
		case <-time.After(shortDrain):
		}
		if err := s.handOver(done); err != nil {
			s.log.Warn("cannot hand over, the next process starts when all requests are done", "error", err)
		}
	}
	defer s.succession.close() // when this process needs no lock any longer
	return <-ended
}

// shutdown drains all gates, and waits for the process before this one.
func (s *Supervisor) shutdown() error {
	limit := s.options.DrainTimeout
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	defer s.admin.stop()
	var others sync.WaitGroup
	others.Go(func() { s.succession.await(ctx) })
	err := s.served.drain(ctx, limit)
	others.Wait()
	s.served.close() // at last: a gate that drains takes locks for the requests that it has
	if err == nil {
		s.log.Info("all requests are done")
	}
	return err
}

// handOver leaves the unit to the next process, if there is going to be one.
func (s *Supervisor) handOver(done <-chan struct{}) error {
	unit := s.options.Unit
	if restarts, err := unit.Restarts(); err != nil || !restarts {
		return err
	}
	for s.served.listens() {
		time.Sleep(time.Millisecond) // shutdown has been called, and closes all listeners first
	}
	l, err := unit.ListenForSuccessor()
	if err != nil {
		return err
	}
	// From Release on, the next process listens where the admin does, notifies systemd, takes the locks and ends pauses.
	s.admin.stop()
	s.systemd.silent.Store(true)
	s.pauses.handOver(s.served.gates(), done)
	s.log.Info("handing over to the next process, this one ends when its requests have")
	s.succession.offerTo(l)
	go s.endOverdue(done)
	return unit.Release()
}

// endOverdue exits the process, which has handed over, if it does not end.
func (s *Supervisor) endOverdue(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(s.options.DrainTimeout + DrainGrace + overdue):
		s.log.Error("this process should have ended, exiting immediately")
		s.env.Exit()
	}
}
