package admin

import (
	"context"

	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Store is the operator's view of a lock store.
type Store interface {
	// Stats returns the figures of the store and its servers. metrics.go says what each is called.
	Stats() sharedlock.Stats
	// Health returns nil if every lock can be acquired.
	Health() error
	// Holder returns the holder of a lock, on any host, and whether there is one.
	Holder(ctx context.Context, key sessionlock.Key) (sessionlock.RemoteHolder, bool, error)
}

var _ Store = (*sharedlock.Store)(nil)
