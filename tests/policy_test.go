package tests

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestMaxWaitSendsTheRequestAway(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `
  lock {
    max_wait    = "100ms"
    retry_after = "3s"
  }
  route "teapot" {
    path   = ["/count.php"]
    status = 418
  }`}})
	session := newSession()
	held := s.hold(t, session, "hold")

	began := time.Now()
	r := s.get("/hello.php", session)
	if waited := time.Since(began); waited < 100*time.Millisecond {
		t.Errorf("it was sent away after %s", waited)
	}
	mustBeSentAway(t, r, http.StatusServiceUnavailable, "3")
	if got, want := r.header.Get("Content-Type"), "text/html; charset=utf-8"; got != want {
		t.Errorf("content type: got %q, want %q", got, want)
	}
	if !strings.Contains(r.body, "<h1>503 Service Unavailable</h1>") || len(r.body) > 1000 {
		t.Errorf("got page %q, want a short one that says 503", r.body)
	}

	r = ask(s.Site, request{path: "/hello.php", session: session, header: map[string]string{"Accept": "application/json"}})
	mustBeSentAway(t, r, http.StatusServiceUnavailable, "3")
	var page struct {
		Status int
		Error  string
	}
	if err := json.Unmarshal([]byte(r.body), &page); err != nil || page.Status != 503 || page.Error == "" {
		t.Errorf("got %q and error %v, want status and error in JSON", r.body, err)
	}
	if got, want := r.header.Get("Content-Type"), "application/json"; got != want {
		t.Errorf("content type: got %q, want %q", got, want)
	}

	r = ask(s.Site, request{method: "HEAD", path: "/hello.php", session: session})
	mustBeSentAway(t, r, http.StatusServiceUnavailable, "3")
	body := strings.NewReader(strings.Repeat("x", 1<<20))
	// A POST whose body takes its time on a busy machine would be sent before the lock is acquired.
	r = ask(s.Site, request{method: "PUT", path: "/upload.php", session: session, body: body})
	mustBeSentAway(t, r, http.StatusServiceUnavailable, "3")
	mustBeSentAway(t, s.get("/count.php", session), http.StatusTeapot, "3")
	awaitLog(t, s.Web, "rejected: max_wait exceeded")

	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	s.get("/hello.php", session).mustBe(t, "hello\n")
}

// mustBeSentAway holds a response to being one of the gate's own.
func mustBeSentAway(t *testing.T, r response, status int, retryAfter string) {
	t.Helper()
	if r.err != nil || r.status != status {
		t.Errorf("got status %d and error %v, want %d", r.status, r.err, status)
		return
	}
	if got := r.header.Get("Retry-After"); got != retryAfter {
		t.Errorf("Retry-After: got %q, want %q", got, retryAfter)
	}
	if got, want := r.header.Get("Cache-Control"), "no-store"; got != want {
		t.Errorf("Cache-Control: got %q, want %q", got, want)
	}
}

func TestMaxWaitCanLetTheRequestPass(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `
  lock {
    max_wait    = "1s"
    on_max_wait = "pass"
  }`}})
	session := newSession()
	held := s.hold(t, session, "hold")
	for range 2 { // the first must not have released what it did not hold
		gate := s.info(t, request{path: "/info.php?session=0", session: session}).Gate
		if got, want := gate["FPM_GATE_LOCK"], "passed"; got != want {
			t.Errorf("lock: got %q, want %q", got, want)
		}
		if got, _ := strconv.Atoi(gate["FPM_GATE_WAIT_MS"]); got < 1000 {
			t.Errorf("waited: got %q ms, want 1000 at least", gate["FPM_GATE_WAIT_MS"])
		}
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	gate := s.info(t, request{path: "/info.php?session=0", session: session}).Gate
	if got, want := gate["FPM_GATE_LOCK"], "held"; got != want {
		t.Errorf("lock after that: got %q, want %q", got, want)
	}
}

func TestOnlyMaxWaitersWait(t *testing.T) {
	t.Parallel()
	const n, waiters = 20, 3
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: "lock { max_waiters = 3 }"}})
	session := newSession()
	held := s.hold(t, session, "hold")
	answers := make(chan response, n)
	for range n {
		go func() { answers <- s.get("/hello.php", session) }()
	}
	for range n - waiters {
		mustBeSentAway(t, <-answers, http.StatusTooManyRequests, "1")
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	for range waiters {
		(<-answers).mustBe(t, "hello\n")
	}
}

// TestAnExpiredLockGoesToTheNext has a script outlive its lock, and looks that
// its end does not release that of the next one.
func TestAnExpiredLockGoesToTheNext(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1) + `
  route "short" {
    path   = ["/wait.php"]
    expiry = "50ms"
  }`}})
	copyScript(t, s.Rig, "wait.php", "long.php")
	session := newSession()
	first := s.hold(t, session, "first")
	second := s.begin("/long.php?mark=second", session)
	awaitMark(t, s.Rig, "second.started")
	awaitLog(t, s.Gate.Server, "lock expired before its script ended")

	letGo(t, s.Rig, "first")
	(<-first).mustBe(t, "last\n")
	third := s.begin("/hello.php", session)
	s.awaitQueue(t, session, 1)
	letGo(t, s.Rig, "second")
	(<-second).mustBe(t, "last\n")
	(<-third).mustBe(t, "hello\n")
}

func TestAnExpiredLockCanEndTheRequest(t *testing.T) {
	t.Parallel()
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		s := newStack(t, stackOptions{
			PHP: rig.PHPOptions{Listen: network},
			Gate: rig.GateOptions{Listen: network, Settings: `
  lock {
    expiry    = "3s"
    on_expiry = "abort"
  }`},
			Site: rig.Site{Unbuffered: true},
		})
		session := newSession()
		r := s.get("/wait.php?mark=silent", session)
		if r.err != nil || r.status != http.StatusGatewayTimeout {
			t.Errorf("%s: nothing sent: got status %d and error %v, want 504", network.Network, r.status, r.err)
		}
		r = s.get("/wait.php?mark=begun&flush=1", session)
		if r.failure() == nil || !strings.HasPrefix(r.body, "first\n") {
			t.Errorf("%s: the first half sent: got %q and a whole response, want an error", network.Network, r.body)
		}
		s.get("/hello.php", session).mustBe(t, "hello\n")
		letGo(t, s.Rig, "silent")
		letGo(t, s.Rig, "begun")
	}
}

func TestASlowWaitIsLoggedWithItsHolder(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{
		Settings: queueRoutes(1),
		Config:   "log {\n  slow_wait = \"1ms\"\n}\n",
	}})
	session := newSession()
	held := s.hold(t, session, "hold")
	waiting := s.begin("/info.php?session=0&secret="+session, session)
	s.awaitQueue(t, session, 1)
	time.Sleep(2 * time.Millisecond) // it is slow now
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	key := infoOf(t, <-waiting).Gate["FPM_GATE_KEY"]

	awaitLog(t, s.Gate.Server, "slow wait")
	for _, want := range []string{
		"key=" + key[:8],
		"method=GET path=/info.php",
		`holder="GET /wait.php"`,
		"holder_script=" + s.DocRoot + "/wait.php",
	} {
		if line := lineWith(s.Gate.Log(), "path=/info.php"); !strings.Contains(line, want) {
			t.Errorf("got %q, want %q in it", line, want)
		}
	}
}

// lineWith returns the first line of a log that has a text in it.
func lineWith(log, text string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}

func TestObserveMakesNobodyWait(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `
  lock {
    observe     = true
    max_waiters = 1
  }`}})
	session := newSession()
	held := s.hold(t, session, "hold")
	for range 3 {
		gate := s.info(t, request{path: "/info.php?session=0", session: session}).Gate
		if got, want := gate["FPM_GATE_LOCK"], "passed"; got != want {
			t.Errorf("lock: got %q, want %q", got, want)
		}
	}
	eventually(t, "each has been logged", func() bool {
		return strings.Count(s.Gate.Log(), "would have waited") == 3
	})
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
}
