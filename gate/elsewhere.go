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
	if r.to.Holder == nil {
		return func() bool { return false }
	}
	key, ask := r.key, r.to.Holder
	return time.AfterFunc(max(r.to.SlowWait/2, lookAtLeast), func() {
		ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
		defer cancel()
		if h, held := ask(ctx, key); held {
			r.elsewhere.Store(&h)
		}
	}).Stop
}

// logHolder are what a log line tells of the one who was waited for, if anything is known of him.
func (r *request) logHolder() []any {
	if r.behind != (sessionlock.Description{}) {
		return []any{"holder", r.behind.Method + " " + r.behind.Path, "holder_script", r.behind.Script}
	}
	h := r.elsewhere.Load()
	if h == nil || r.waited == 0 || r.lock != nil && h.Token == r.lock.LeaseToken() { // it was this very request
		return nil
	}
	return []any{"holder_host", h.Host, "holder_gate", h.Gate}
}
