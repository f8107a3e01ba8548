package gate

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// FindHolder asks the store for the holder of a lock. It returns false if there is none or the store cannot say.
type FindHolder func(context.Context, sessionlock.Key) (sessionlock.RemoteHolder, bool)

const (
	lookTimeout = 2 * time.Second      // of the store's answer; the wait may end before it
	lookAtLeast = 1 * time.Millisecond // the earliest time in a wait, even if every wait is logged
)

// findRemoteHolder asks the store for the holder of a lock once the wait for it has lasted that long, and stores it in
// found: by the end of the wait the holder has changed. The caller must call stop. ask may be nil.
func findRemoteHolder(
	ask FindHolder, key sessionlock.Key, after time.Duration, found *atomic.Pointer[sessionlock.RemoteHolder],
) (stop func() bool) {
	if ask == nil {
		return func() bool { return false }
	}
	return time.AfterFunc(max(after, lookAtLeast), func() {
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		defer cancel()
		if h, held := ask(ctx, key); held {
			found.Store(&h)
		}
	}).Stop
}
