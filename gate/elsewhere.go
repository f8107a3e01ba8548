package gate

import (
	"context"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Elsewhere is who holds a lock in another process, as far as the store knows.
type Elsewhere struct {
	Gate, Host string
	Token      sessionlock.Token // of its hold
}

// AskHolder asks the store who holds a lock; false: nobody, or the store cannot say.
type AskHolder func(context.Context, sessionlock.Key) (Elsewhere, bool)

const (
	lookTimeout = 2 * time.Second      // of the store's answer; the wait may be over before it
	lookAtLeast = 1 * time.Millisecond // into the wait, even if each wait is logged
)

// lookElsewhere has the store asked who holds the lock if the wait gets slow, so that the log can name him: when it is
// over he does not hold it any more. The one who waits calls stop.
func (r *request) lookElsewhere() (stop func() bool) {
	if r.setup.Holder == nil {
		return func() bool { return false }
	}
	key, ask := r.key, r.setup.Holder
	return time.AfterFunc(max(r.setup.SlowWait/2, lookAtLeast), func() {
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		defer cancel()
		if h, held := ask(ctx, key); held {
			r.elsewhere.Store(&h)
		}
	}).Stop
}
