package tests

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
		"FPM_GATE_LOCK":     "^held$",
		"FPM_GATE_KEY":      "^[0-9a-f]{32,}$",
		"FPM_GATE_WAIT_MS":  "^0$",
		"FPM_GATE_QUEUE_MS": "^[0-9]+$",
		"FPM_GATE_TOKEN":    "^[0-9a-f]{32}$",
		"FPM_GATE_EXPIRES":  "^[0-9]{10}$",
	} {
		if got := gate[name]; !regexp.MustCompile(form).MatchString(got) {
			t.Errorf("%s: got %q, want %s", name, got, form)
		}
	}
	if got, want := len(gate), 6; got != want {
		t.Errorf("got params %v, want %d", slices.Sorted(maps.Keys(gate)), want)
	}
	expires, _ := strconv.ParseInt(gate["FPM_GATE_EXPIRES"], 10, 64)
	if earliest, latest := before+100, time.Now().Unix()+100; expires < earliest || expires > latest {
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
	if next["FPM_GATE_KEY"] != gate["FPM_GATE_KEY"] {
		t.Errorf("got %v after %v, want the same key", next, gate)
	}
	// A worker needs a moment after its response until it reads its connection again. A request that comes before that
	// waits, and gets the lock with its token.
	eventually(t, "a lock that was free has another token", func() bool {
		return s.info(t, request{path: "/info.php?session=0", session: session}).Gate["FPM_GATE_TOKEN"] != next["FPM_GATE_TOKEN"]
	})

	none := s.info(t, request{path: "/info.php?session=0"}).Gate
	if none["FPM_GATE_LOCK"] != "none" || none["FPM_GATE_QUEUE_MS"] == "" || len(none) != 2 {
		t.Errorf("without a session: got %v, want no lock, and the wait for a connection", none)
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

// TestTheTokenThatPHPIsToldIsInMemcached has scripts look for their own lock: one that was free, one that was handed on
// within a host, one that came from another host, and one that was held without memcached at first.
func TestTheTokenThatPHPIsToldIsInMemcached(t *testing.T) {
	t.Parallel()
	for name, quorum := range map[string]bool{"one server": false, "quorum": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, fleetOptions{quorum: quorum, lock: `on_store_failure = "local"`, more: queueRoutes(2)})
			var servers []string
			for _, s := range f.locks {
				servers = append(servers, s.Addr.String())
			}
			q := request{path: "/token.php?servers=" + strings.Join(servers, ","), session: newSession()}
			enough := len(servers)/2 + 1
			mustHaveToken := func(what string, r response, lock string) {
				t.Helper()
				var got string
				var found int
				if _, err := fmt.Sscan(r.body, &got, &found); err != nil || r.failure() != nil || got != lock || found < enough {
					t.Errorf("%s: got status %d and %q, want %s and the token on %d servers", what, r.status, r.body, lock, enough)
				}
			}
			mustHaveToken("free", ask(f.sites[0], q), "held")

			here, there := &stack{Rig: f.Rig, Site: f.sites[0]}, &stack{Site: f.sites[1]}
			held := here.hold(t, q.session, "hold")
			handedOn := []<-chan response{begin(f.sites[0], q), begin(f.sites[0], q)}
			here.awaitQueue(t, q.session, 2)
			passedOn := begin(f.sites[1], q)
			there.awaitQueue(t, q.session, 1)
			letGo(t, f.Rig, "hold")
			(<-held).mustBe(t, "last\n")
			mustHaveToken("handed on", <-handedOn[0], "held")
			mustHaveToken("handed on again", <-handedOn[1], "held")
			mustHaveToken("from another host", <-passedOn, "held")

			for _, s := range f.locks {
				s.Kill()
			}
			q.path += "&mark=local"
			local := begin(f.sites[0], q)
			awaitMark(t, f.Rig, "local.started")
			for _, s := range f.locks {
				mustDo(t, s.Start())
			}
			mustHaveToken("held without memcached at first", <-local, "local")
		})
	}
}
