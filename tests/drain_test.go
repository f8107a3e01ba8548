package tests

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// drained starts a stack with a request that holds a session and two that wait
// for it, and tells the gate to end.
func drained(t *testing.T, timeout string) (s *stack, held <-chan response, waiting []<-chan response) {
	t.Helper()
	s = newStack(t, stackOptions{
		Gate: rig.GateOptions{Settings: queueRoutes(2), Args: []string{"--drain-timeout", timeout}},
		Site: rig.Site{Unbuffered: true},
	})
	session := newSession()
	held = s.begin("/wait.php?flush=1&mark=hold", session)
	awaitMark(t, s.Rig, "hold.started")
	for i := range 2 {
		waiting = append(waiting, s.begin("/hello.php", session))
		s.awaitQueue(t, session, i+1)
	}
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "draining")
	return s, held, waiting
}

func TestSIGTERMServesWhatIsThere(t *testing.T) {
	t.Parallel()
	s, held, waiting := drained(t, "30s")
	eventually(t, "the gate accepts nothing more", func() bool {
		return s.get("/hello.php", "").status == http.StatusBadGateway
	})
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "first\nlast\n")
	for _, answer := range waiting {
		(<-answer).mustBe(t, "hello\n")
	}
	s.mustExit(t, 0)
}

func TestWaitersAreSentAwayWhenTheDrainIsOver(t *testing.T) {
	t.Parallel()
	s, held, waiting := drained(t, "100ms")
	for _, answer := range waiting {
		mustBeSentAway(t, <-answer, http.StatusServiceUnavailable, "1")
	}
	letGo(t, s.Rig, "hold") // a script that runs is given a moment more
	(<-held).mustBe(t, "first\nlast\n")
	s.mustExit(t, 0)
}

func TestAScriptThatOutlivesTheDrainIsBrokenOff(t *testing.T) {
	t.Parallel()
	s, held, _ := drained(t, "100ms")
	if r := <-held; r.failure() == nil {
		t.Errorf("got a whole response with %q, want an error", r.body)
	}
	s.mustExit(t, 1)
	if !strings.Contains(s.Gate.Log(), "requests were still there") {
		t.Errorf("the log does not say that requests were still there")
	}
	letGo(t, s.Rig, "hold")
}

func TestASecondSIGTERMEndsAtOnce(t *testing.T) {
	t.Parallel()
	s, held, waiting := drained(t, "30s")
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.mustExit(t, 1)
	for _, answer := range append(waiting, held) {
		<-answer
	}
	letGo(t, s.Rig, "hold")
}

// mustExit waits for the gate's end.
func (s *stack) mustExit(t *testing.T, code int) {
	t.Helper()
	<-s.Gate.Exited()
	if got := s.Gate.ExitCode(); got != code {
		t.Errorf("exit code: got %d, want %d", got, code)
	}
}
