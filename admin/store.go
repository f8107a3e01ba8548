package admin

import (
	"context"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Store is the store of locks as an operator sees it.
type Store interface {
	Figures() StoreFigures
	// Health is nil if all locks can be had.
	Health() error
	// Holder asks who holds a lock, on any host; false: nobody.
	Holder(ctx context.Context, key sessionlock.Key) (Elsewhere, bool, error)
}

// Elsewhere is who holds a lock, as far as the store knows.
type Elsewhere struct {
	Gate, Host string
	Since      time.Time
}

// StoreFigures are the figures of a Store. Counters begin with it.
type StoreFigures struct {
	Leases, Waits int    // now, of this process
	Lost          uint64 // leases
	Servers       []ServerFigures
}

// ServerFigures are those of one of its servers.
type ServerFigures struct {
	Server    string
	Up, Grace bool
	Disagree  int // settings of other hosts that differ

	Questions, Polled, Failures, Timeouts, Unasked, LostAnswers, Forgot, Regained uint64
}
