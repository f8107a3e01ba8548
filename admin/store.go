package admin

import (
	"context"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Store is the operator's view of a lock store.
type Store interface {
	Figures() StoreFigures
	// Health returns nil if every lock can be acquired.
	Health() error
	// Holder returns the holder of a lock, on any host, and whether there is one.
	Holder(ctx context.Context, key sessionlock.Key) (Elsewhere, bool, error)
}

// Elsewhere is a lock's holder, as far as the store knows it.
type Elsewhere struct {
	Gate, Host string
	Since      time.Time
}

// StoreFigures are the figures of a Store. Counters start at 0 with the Store.
type StoreFigures struct {
	Leases, Waits int    // of this process, now
	Lost          uint64 // leases lost
	Servers       []ServerFigures
}

// ServerFigures are the figures of one server of a Store.
type ServerFigures struct {
	Server    string
	Up, Grace bool
	Disagree  int // settings of other hosts that differ

	Questions, Polled, Failures, Timeouts, Unasked, LostAnswers, Forgot, Regained uint64
}
