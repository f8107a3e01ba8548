package tests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// newPausable starts a stack with an admin.
func newPausable(t *testing.T, php rig.PHPOptions, upstream, settings string) (*stack, operator) {
	t.Helper()
	s := newStackOf(t, php, upstream, settings+queueRoutes(2))
	block, o := adminBlock(t)
	reload(t, s.Gate, s.Gate.Config+block)
	return s, o
}

// pauseOf is what the admin says of the first gate.
type pauseOf struct {
	Paused           bool
	Waiting, Running int
}

func (o operator) pause(t *testing.T) pauseOf {
	t.Helper()
	var page struct{ Gates []pauseOf }
	if err := json.Unmarshal([]byte(o.get(t, "/pause")), &page); err != nil || len(page.Gates) == 0 {
		t.Fatalf("got %v and no gate", err)
	}
	return page.Gates[0]
}

func (o operator) awaitHeld(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d requests wait for the end of the pause", n), func() bool { return o.pause(t).Waiting == n })
}

// mustRun runs a command that must succeed, and say something.
func (o operator) mustRun(t *testing.T, says string, args ...string) {
	t.Helper()
	if code, out, errs := o.run(t, args...); code != 0 || !strings.Contains(out, says) {
		t.Errorf("%q: got code %d, %q and %q, want %q", args, code, out, errs, says)
	}
}

func TestAPauseLetsPHPFPMBecomeIdle(t *testing.T) {
	t.Parallel()
	s, o := newPausable(t, rig.PHPOptions{}, "", `lock { max_wait = "2s" }`)
	session := newSession()
	slow := s.hold(t, "", "slow")
	paused := make(chan string, 1)
	go func() {
		code, out, errs := o.run(t, "pause", "www", "--wait", "--for", "5m")
		paused <- fmt.Sprintf("%d %s%s", code, out, errs)
	}()
	eventually(t, "it is paused", func() bool { return o.pause(t).Paused })
	held := []<-chan response{s.begin("/note.php?mark=order&say=0", session)}
	o.awaitHeld(t, 1)
	held = append(held, s.begin("/note.php?mark=order&say=1", session)) // longer than its max_wait
	o.awaitWaiters(t, 1)
	time.Sleep(2200 * time.Millisecond)
	select {
	case got := <-paused:
		t.Errorf("while a script runs: got %q", got)
	default:
	}
	for path, want := range map[string]string{
		"/metrics": `fpm_gate_paused{gate="www"} 1`, "/readyz": "is paused until",
		"/locks": `"pause":{"gates":[{"gate":"www","paused":true,`,
	} {
		if got := o.get(t, path); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %q", path, got, want)
		}
	}
	letGo(t, s.Rig, "slow")
	(<-slow).mustBe(t, "last\n")
	if got, want := <-paused, "0 www: paused for at most 5m0s; PHP-FPM is idle\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	o.mustRun(t, "; 1 request waits, 0 in PHP-FPM\n", "locks")
	if got := o.pause(t); got.Running != 0 || got.Waiting != 1 {
		t.Errorf("got %+v, want one that waits", got)
	}
	o.mustRun(t, "www: resumed; 1 request waited", "resume")
	for i, answer := range held {
		(<-answer).mustBe(t, fmt.Sprintf("%d\n", i))
	}
	o.mustRun(t, "www: was not paused", "resume", "www")
	for _, line := range []string{"paused; new requests wait", "resumed: paused_ms=", "pause requested by an operator: gate=www"} {
		awaitLog(t, s.Gate.Server, line)
	}
}

func TestAPauseEndsByItself(t *testing.T) {
	t.Parallel()
	s, o := newPausable(t, rig.PHPOptions{}, "", "")
	slow := s.hold(t, "", "slow")
	if code, _, errs := o.run(t, "pause", "--wait", "--for", "1s"); code != 1 || !strings.Contains(errs, "before PHP-FPM was idle") {
		t.Errorf("got code %d and %q, want 1 and the reason", code, errs)
	}
	s.get("/hello.php", "").mustBe(t, "hello\n")
	letGo(t, s.Rig, "slow")
	(<-slow).mustBe(t, "last\n")
	awaitLog(t, s.Gate.Server, "resumed because the pause has reached its limit")
}

func TestARequestWaitsForAPauseNoLongerThanQueueTimeout(t *testing.T) {
	t.Parallel()
	s, o := newPausable(t, rig.PHPOptions{}, `queue_timeout = "1s"`, "")
	o.mustRun(t, "www: paused", "pause")
	mustBeSentAway(t, s.get("/hello.php", newSession()), http.StatusServiceUnavailable, "1")
	awaitLog(t, s.Gate.Server, "rejected: the gate is paused")
	o.mustRun(t, "resumed", "resume")
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
}

func TestPauseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, o := newPausable(t, rig.PHPOptions{}, "", "")
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{1, `no gate "shop"; there are: www`, []string{"pause", "shop"}},
		{1, `no gate "shop"; there are: www`, []string{"resume", "shop"}},
		{1, `for must be from "1s" to "24h"; got "0s"`, []string{"pause", "--for", "0s"}},
		{2, "invalid argument", []string{"pause", "--for", "10"}},
		{2, "one GATE, or none for all", []string{"pause", "a", "b"}},
	} {
		if code, _, errs := o.run(t, c.args...); code != c.code || !strings.Contains(errs, c.text) {
			t.Errorf("%q: got code %d and %q, want %d and %q", c.args, code, errs, c.code, c.text)
		}
	}
}

func TestAReloadDoesNotEndAPause(t *testing.T) {
	t.Parallel()
	s, o := newPausable(t, rig.PHPOptions{}, "", "")
	o.mustRun(t, "www: paused", "pause")
	held := []<-chan response{s.begin("/hello.php", newSession())}
	o.awaitHeld(t, 1)
	reload(t, s.Gate, strings.Replace(s.Gate.Config, "upstream {", "upstream {\nmax_connections = 2\n", 1))
	held = append(held, s.begin("/hello.php", newSession()))
	o.awaitHeld(t, 2)
	o.mustRun(t, "resumed; 2 requests waited", "resume")
	for _, answer := range held {
		(<-answer).mustBe(t, "hello\n")
	}
}

func TestADrainSendsAwayWhatAPauseHolds(t *testing.T) {
	t.Parallel()
	s, o := newPausable(t, rig.PHPOptions{}, "", "") // its gate has a second to drain
	o.mustRun(t, "www: paused", "pause")
	held := s.begin("/hello.php", newSession())
	o.awaitHeld(t, 1)
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	mustBeSentAway(t, <-held, http.StatusServiceUnavailable, "1")
	s.mustExit(t, 0)
}

// Under systemd the next process pauses its gates, too, and "resume" lets go what the old one holds.
func TestARestartOfAUnitDoesNotEndAPause(t *testing.T) {
	t.Parallel()
	block, o := adminBlock(t)
	_, site, gate := unitStack(t, "restart", func(a *activated) {
		text, err := os.ReadFile(a.config)
		if err == nil {
			err = os.WriteFile(a.config, append(text, block...), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	gate.awaitServing(1)
	o.mustRun(t, "www: paused", "pause", "--for", "10m")
	held := []<-chan response{begin(site, request{path: "/hello.php", session: newSession()})}
	o.awaitHeld(t, 1)
	gate.restart() // with a hand-over
	gate.awaitServing(2)
	held = append(held, begin(site, request{path: "/hello.php", session: newSession()}))
	o.awaitHeld(t, 1)
	o.mustRun(t, "resumed; 1 request waited", "resume")
	for _, answer := range held {
		(<-answer).mustBe(t, "hello\n")
	}
	gate.awaitEnds(1)
	o.mustRun(t, "www: paused", "pause", "--wait")
	gate.restart() // without one, as no request is there
	gate.awaitServing(3)
	if !o.pause(t).Paused {
		t.Error("a restart without requests has ended the pause")
	}
	o.mustRun(t, "resumed", "resume")
	gate.restart()
	gate.awaitServing(4)
	if o.pause(t).Paused {
		t.Error("a restart has begun a pause that had ended")
	}
}

// With a pause, PHP-FPM can be killed over any transport, and nothing is lost.
func TestADeployWithAPauseLosesNoRequest(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s, o := newPausable(t, rig.PHPOptions{Listen: network}, `unreachable_wait = "20s"`, `lock { max_wait = "30s" }`)
		v := startVisits(s.Site)
		v.restart(t, s, func(int) {
			o.mustRun(t, "PHP-FPM is idle", "pause", "--wait", "--for", "5m")
			stop(t, s, syscall.SIGTERM)
			<-s.PHP.Exited()
			v.await(t, 20)
			o.mustRun(t, "resumed", "resume") // before PHP-FPM is there
		})
		o.mustRun(t, "PHP-FPM is idle", "pause", "--wait", "--for", "5m")
		v.reload(t, s)
		o.mustRun(t, "resumed", "resume")
		v.end(t, s)
		for _, f := range v.failures {
			t.Error(f)
		}
		t.Logf("%d requests; the longest answer took %v", v.sent.Load(), v.longest)
	})
}
