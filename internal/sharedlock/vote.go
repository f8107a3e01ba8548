package sharedlock

import (
	"errors"
	"fmt"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// answer is one server's vote on a lease.
type answer struct {
	replica int // which of the lease's
	vote    vote
	found   []*kv.Item // with voteNo: the lock and its line as they were instead; nil: not known
	gone    bool       // with voteNo: no gate has the lock
	err     error      // with voteFailed
}

type vote int

const (
	voteYes vote = iota
	voteNo
	voteFailed
)

// votes is what the servers say together.
type votes struct {
	majority        int // how many yes votes make one
	yes, no, failed int
	pending         int // members that have not answered
	busy            bool
	err             error
}

// decided reports whether the rest cannot change it.
func (t *votes) decided() bool {
	could := t.yes + t.no + t.failed + t.pending - t.majority
	return t.pending == 0 || t.yes >= t.majority || t.no > could || t.failed > could
}

func (t *votes) count(a answer) {
	t.pending--
	switch a.vote {
	case voteYes:
		t.yes++
	case voteNo:
		t.no++
	case voteFailed:
		t.failed++
		t.busy = t.busy || errors.Is(a.err, kv.ErrBusy)
		t.err = errors.Join(t.err, a.err)
	}
}

// outcome returns nil if a majority granted the lease, ErrHeld if a majority is reachable but has not, or is only too
// busy, else ErrStore.
func (t *votes) outcome() error {
	switch {
	case t.yes >= t.majority:
		return nil
	case t.yes+t.no+t.pending >= t.majority, t.busy:
		return sessionlock.ErrHeld
	}
	return storeError(t.err)
}

// storeError is err as sessionlock knows it.
func storeError(err error) error { return fmt.Errorf("%w: %w", sessionlock.ErrStore, err) }

// majority is how many of n make a lease.
func majority(n int) int { return n/2 + 1 }
