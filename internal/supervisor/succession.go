package supervisor

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/handover"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// succession passes the locks in the process from one process of a unit to the next, while the one that ends serves its
// last requests.
type succession struct {
	unit  Unit // nil: this process is not one of a unit
	log   hclog.Logger
	store *sessionlock.Local // of locks
	locks *sessionlock.Manager

	taken *handover.Taken // locks of the process before this one; nil: there was none
	offer *handover.Offer // to the process after this one; nil: there is none
}

// takeOver takes the locks of the process that served before this one and has not ended yet. Without them requests of
// one session could run in both, so it has to be done before anything is served. Usually there is no such process.
func (s *succession) takeOver() {
	if s.unit == nil {
		return
	}
	nc, err := s.unit.DialPredecessor()
	if errors.Is(err, ErrNoFolder) {
		s.log.Warn("locks cannot be taken over", "error", err)
		return
	}
	if err == nil && nc == nil {
		return
	}
	if err == nil {
		s.taken, err = handover.Take(nc, s.locks)
	}
	if err != nil {
		s.log.Error("locks of the previous process cannot be taken over, its sessions are not waited for", "error", err)
		return
	}
	s.log.Info("the previous process still serves requests, its locks are taken over", "locks", s.taken.Len())
	go s.reportLoss(s.taken)
}

// reportLoss logs if the locks of the process before this one end before it has: its requests and those of this process
// then do not wait for each other.
func (s *succession) reportLoss(taken *handover.Taken) {
	if err := taken.Err(); err != nil {
		s.log.Error("locks of the previous process are lost, its sessions are not waited for", "error", err)
	}
}

// previous reports whether the process before this one still serves.
func (s *succession) previous() bool {
	if s.taken == nil {
		return false
	}
	select {
	case <-s.taken.Done():
		return false
	default:
		return true
	}
}

// await waits for the end of the process before this one, but no longer than a drain, which ctx has the time of. While
// it serves, this process holds its locks against the next.
func (s *succession) await(ctx context.Context) {
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
	case <-time.After(DrainGrace):
	}
}

// offerTo leaves the locks to the process that connects to l.
func (s *succession) offerTo(l net.Listener) { s.offer = handover.NewOffer(l, s.store, s.locks) }

// close is called when no request of this process is left.
func (s *succession) close() {
	if s.offer != nil {
		s.offer.Close()
	}
}
