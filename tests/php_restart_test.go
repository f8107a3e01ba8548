package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What becomes of requests while PHP-FPM restarts.

// A request that waits for PHP-FPM's return keeps its lock, whose expiry has not begun, and its place before the next one
// of its session.
func TestRequestsAwaitPHPFPMsReturn(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStackOf(t, rig.PHPOptions{Listen: network}, `unreachable_wait = "29s"`, `lock { expiry = "100ms" }`+queueRoutes(1))
		if err := s.PHP.Stop(); err != nil {
			t.Fatal(err)
		}
		session := newSession()
		answers := []<-chan response{begin(s.Site, request{
			method: "POST", path: "/note.php?mark=order&say=0", body: strings.NewReader("x"), session: session,
		})}
		awaitLog(t, s.Gate.Server, "PHP-FPM is away; requests wait for it")
		answers = append(answers, s.begin("/note.php?mark=order&say=1", session))
		s.awaitQueue(t, session, 1)
		answers = append(answers, s.begin("/note.php?mark=other&say=2", newSession()))
		time.Sleep(200 * time.Millisecond) // longer than the expiry
		if err := s.PHP.Start(); err != nil {
			t.Fatal(err)
		}
		for i, answer := range answers {
			(<-answer).mustBe(t, fmt.Sprintf("%d\n", i))
		}
		if got := notes(t, s.Rig, "order"); strings.Join(got, " ") != "0 1" {
			t.Errorf("got %q, want 0 and then 1", got)
		}
		awaitLog(t, s.Gate.Server, "PHP-FPM is back")
		if strings.Contains(s.Gate.Log(), "expired") {
			t.Error("a lock has expired while its request waited for PHP-FPM")
		}
	})
}
