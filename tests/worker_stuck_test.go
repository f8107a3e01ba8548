package tests

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestTheSessionOfAStuckScriptWorksAgain: whatever a script is stuck in, and whatever keeps its session, with
// on_expiry = "terminate" the next request gets the session soon after the expiry, PHP's own lock included. What the
// script has put into the session until then is as PHP leaves it.
func TestTheSessionOfAStuckScriptWorksAgain(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it accepts nothing and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	const expiry, grace = time.Second, time.Second // the grace is the default
	o := stackOptions{PHP: rig.PHPOptions{Workers: 12}, Gate: rig.GateOptions{Settings: `lock {
    max_wait        = "55s"
    expiry          = "1s"
    on_expiry       = "terminate"
  }
  route "quick" { // but not on a busy machine
    path   = ["/work.php", "/count.php"]
    expiry = "1m"
  }`}}
	// In what a script is stuck, and by what it ends.
	stuck := map[string]string{
		"sleep": "limit", "busy": "limit", "regex": "limit", "deaf": "limit", "read": "term", "shutdown": "term",
		"query": "term",
	}
	onWorkers(t, o, func(t *testing.T, s *stack, h sessionHandler) {
		for in, by := range stuck {
			if by == "term" && h.locks && h.config == "" && len(h.programs) > 0 {
				continue // docs/WORKERS.md: it lasts for redis.session.lock_expire
			}
			if in == "query" && !h.database {
				continue
			}
			t.Run(in, func(t *testing.T) {
				t.Parallel()
				session := newSession()
				s.get("/work.php", session).mustBe(t, "1\n")
				began := time.Now()
				script := s.begin(fmt.Sprintf("/stuck.php?how=%s&port=%d&mark=%s", in, silent.Addr().(*net.TCPAddr).Port, in), session)
				awaitMark(t, s.Rig, in+".started")
				next := s.get("/count.php", session)
				took := time.Since(began)
				if next.failure() != nil {
					t.Errorf("the next request: %v", next.failure())
				}
				t.Logf("by %s: the session works again %v after the expiry", by, (took - expiry).Round(time.Millisecond))
				if took > 20*time.Second {
					t.Errorf("the next request took %v", took)
				}
				r := <-script
				want := map[string]int{"limit": 500, "term": 504}[by]
				if took > expiry+grace && r.status == 504 {
					want = 504 // the worker got no CPU in time to obey the limit
				}
				if r.status != want {
					t.Errorf("the stuck request was answered %d %v, want %d", r.status, r.err, want)
				}
			})
		}
	})
}

// TestAStuckScriptWhoseBrowserHasGoneIsEnded: on_abandon = "terminate" frees its session long before it expires.
func TestAStuckScriptWhoseBrowserHasGoneIsEnded(t *testing.T) {
	o := stackOptions{PHP: rig.PHPOptions{Workers: 12}, Gate: rig.GateOptions{Settings: `lock {
    max_wait      = "55s"
    expiry        = "10m"
    abandon_after = "300ms"
    on_abandon    = "terminate"
  }`}}
	onWorkers(t, o, func(t *testing.T, s *stack, h sessionHandler) {
		session := newSession()
		s.get("/work.php", session).mustBe(t, "1\n")
		leave(t, s.Rig, s.Site, request{path: "/stuck.php?how=sleep&mark=left", session: session}, "left.started")
		if r := s.get("/count.php", session); r.failure() != nil {
			t.Errorf("the next request: %v", r.failure())
		}
		awaitLog(t, s.Gate.Server, "script terminated, it kept its lock for too long")
	})
}
