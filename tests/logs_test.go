package tests

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestNoLogTellsASessionID has the gate log all that it can, in JSON, of
// requests that go all the ways there are. That no id is in the log is what
// checkLog looks for after each test.
func TestNoLogTellsASessionID(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		Gate: rig.GateOptions{
			Settings: `
  session { query = ["sid"] }
  lock {
    max_wait    = "1ms"
    max_waiters = 1
    expiry      = "200ms"
  }
  route "observed" {
    path    = ["/hello.php"]
    observe = true
  }`,
			Config: "log {\n  level = \"trace\"\n  format = \"json\"\n  slow_wait = \"1ms\"\n}\n",
		},
		Site: rig.Site{Unbuffered: true},
	})
	session := newSession()
	held := s.hold(t, session, "hold")
	for range 3 {
		s.get("/hello.php?sid="+session, session).mustBe(t, "hello\n")
		if r := s.get("/count.php?sid="+session, ""); r.status != http.StatusServiceUnavailable {
			t.Errorf("got status %d and error %v, want 503", r.status, r.err)
		}
	}
	awaitLog(t, s.Gate.Server, "lock expired")
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	s.get("/die.php?kb=10", session)
	ids := strings.Fields(s.get("/login.php", session).body)
	if len(ids) != 2 || strings.Contains(s.Gate.Log(), ids[1]) {
		t.Errorf("the log tells the new one of the ids %q", ids)
	}
	if err := s.PHP.Stop(); err != nil {
		t.Fatal(err)
	}
	s.get("/hello.php", session)
	for line := range strings.Lines(s.Gate.Log()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["@message"] == "" {
			t.Errorf("got line %q and error %v, want a message in JSON", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, fields["@timestamp"].(string)); err != nil {
			t.Error(err)
		}
	}
}
