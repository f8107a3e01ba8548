package tests

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestPHPIsToldOfTheLock(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: "lock { expiry = \"100s\" }\n" + queueRoutes(1)}})
	session := newSession()

	before := time.Now().Unix()
	gate := s.info(t, request{path: "/info.php?session=0", session: session}).Gate
	for name, form := range map[string]string{
		"FPM_GATE_LOCK":    "^held$",
		"FPM_GATE_KEY":     "^[0-9a-f]{32,}$",
		"FPM_GATE_WAIT_MS": "^0$",
		"FPM_GATE_TOKEN":   "^[0-9a-f]{32}$",
		"FPM_GATE_EXPIRES": "^[0-9]{10}$",
	} {
		if got := gate[name]; !regexp.MustCompile(form).MatchString(got) {
			t.Errorf("%s: got %q, want %s", name, got, form)
		}
	}
	if got, want := len(gate), 5; got != want {
		t.Errorf("got params %v, want %d", slices.Sorted(maps.Keys(gate)), want)
	}
	expires, _ := strconv.ParseInt(gate["FPM_GATE_EXPIRES"], 10, 64)
	if earliest, latest := before+100, time.Now().Unix()+101; expires < earliest || expires > latest {
		t.Errorf("expires: got %d, want between %d and %d", expires, earliest, latest)
	}

	held := s.hold(t, session, "hold")
	waiting := s.begin("/info.php?session=0", session)
	s.awaitQueue(t, session, 1)
	time.Sleep(5 * time.Millisecond) // of a wait that the test tells the length of
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	next := infoOf(t, <-waiting).Gate
	if got, _ := strconv.Atoi(next["FPM_GATE_WAIT_MS"]); got < 5 {
		t.Errorf("wait: got %q ms, want 5 at least", next["FPM_GATE_WAIT_MS"])
	}
	if next["FPM_GATE_KEY"] != gate["FPM_GATE_KEY"] || next["FPM_GATE_TOKEN"] == gate["FPM_GATE_TOKEN"] {
		t.Errorf("got %v after %v, want the same key and another token", next, gate)
	}

	none := s.info(t, request{path: "/info.php?session=0"}).Gate
	if want := map[string]string{"FPM_GATE_LOCK": "none"}; !maps.Equal(none, want) {
		t.Errorf("without a session: got %v, want %v", none, want)
	}
}

// TestARequestCannotTellPHPOfALock has the web server pass params of the gate's
// names, as one that is set up badly might do with what a browser sends.
func TestARequestCannotTellPHPOfALock(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Site: rig.Site{Settings: `
            fastcgi_param FPM_GATE_LOCK held;
            fastcgi_param FPM_GATE_KEY forged;
            fastcgi_param FPM_GATE_TOKEN forged;
            fastcgi_param FPM_GATE_WAIT_MS forged;
            fastcgi_param FPM_GATE_EXPIRES forged;
            fastcgi_param FPM_GATE_ forged;
            fastcgi_param FPM_GATE_MORE forged;`}})
	for session, want := range map[string]string{"": "none", newSession(): "held"} {
		gate := s.info(t, request{path: "/info.php?session=0", session: session}).Gate
		if got := gate["FPM_GATE_LOCK"]; got != want {
			t.Errorf("lock: got %q, want %q", got, want)
		}
		for name, value := range gate {
			if value == "forged" {
				t.Errorf("session %q: %s is what the request said", session, name)
			}
		}
	}
}
