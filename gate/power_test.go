package gate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/phpworker"
)

// TestPowerComesAndGoes: what a gate lacks to end scripts is logged once, and once when it is there.
func TestPowerComesAndGoes(t *testing.T) {
	worker := newFakeWorker()
	s := newWorkerStand(t, worker, func(o *Options) { o.Policy.OnExpiry, o.Policy.Expiry = OverdueTerminate, time.Hour })
	if err := s.CannotTerminate(); err != nil {
		t.Fatalf("got %v, want that it can", err)
	}
	workers := s.setup.Load().Workers
	set := func(failure error) {
		worker.mu.Lock()
		worker.failure = failure
		worker.mu.Unlock()
		workers.asking.Lock()
		workers.asked = time.Time{}
		workers.asking.Unlock()
	}
	set(fmt.Errorf("%w does not listen", phpworker.ErrHelper))
	for range 3 {
		if err := s.CannotTerminate(); err == nil || !strings.Contains(err.Error(), "does not listen") {
			t.Fatalf("got %v, want the reason", err)
		}
	}
	set(nil)
	for range 3 {
		if err := s.CannotTerminate(); err != nil {
			t.Fatalf("got %v, want that it can again", err)
		}
	}
	for _, want := range []string{"cannot end scripts", "can end scripts now"} {
		if n := strings.Count(s.log.String(), want); n != 1 {
			t.Errorf("the log says %d times that it %s, want once", n, want)
		}
	}
}
