package tests

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What becomes of many requests, in all their phases, when one side of the gate dies.

// phases begins a request in each phase that there is, with a session each unless it is said otherwise:
// running and silent, in the middle of its response, waiting for the lock of the first, waiting for a connection, and
// in the middle of its body.
func (s *stack) phases(t *testing.T) (answered map[string]<-chan response, endBody func()) {
	t.Helper()
	session := newSession()
	answered = map[string]<-chan response{
		"running": s.hold(t, session, "running"),
		"half":    s.begin("/wait.php?mark=half&flush=1", newSession()),
	}
	awaitMark(t, s.Rig, "half.started")
	answered["waiting"] = s.begin("/note.php?mark=ran&say=waiting", session)
	body, endBody := slowBody(t)
	answered["body"] = begin(s.Site, request{method: "PUT", path: "/reads.php?mark=body", session: newSession(), body: body, length: 1 << 20})
	awaitMark(t, s.Rig, "body.first")
	answered["queueing"] = s.begin("/note.php?mark=ran&say=queueing", newSession())
	return answered, endBody
}

// slowBody is a body whose first lines come at once, as many as PHP wants to see before it tells the script of the
// first; and the rest never. A client waits for it whatever becomes of its connection, so it has to be ended then.
func slowBody(t *testing.T) (body io.Reader, end func()) {
	r, w := io.Pipe()
	go func() { _, _ = io.WriteString(w, strings.Repeat(strings.Repeat("x", 1<<14)+"\n", 4)) }()
	end = func() { _ = w.CloseWithError(io.ErrUnexpectedEOF) }
	t.Cleanup(end)
	return r, end
}

// phaseStack is a stack whose three connections to PHP-FPM are taken by the phases.
func phaseStack(t *testing.T) *stack {
	t.Helper()
	return newStack(t, stackOptions{
		PHP:  rig.PHPOptions{Workers: 5},
		Gate: rig.GateOptions{Config: `log { level = "debug" }`, Settings: `lock { abandon_after = "50s" }`},
		Site: rig.Site{Unbuffered: true},
	}).limit(t, 3)
}

// limit reloads the gate with max_connections.
func (s *stack) limit(t *testing.T, n int) *stack {
	t.Helper()
	reload(t, s.Gate, withUpstream(s.Gate.Config, fmt.Sprintf("max_connections = %d\nqueue_timeout = \"40s\"", n)))
	return s
}

func TestPHPFPMThatIsKilledFailsWhatItHadAndNothingElse(t *testing.T) {
	t.Parallel()
	s := phaseStack(t)
	before, idle := baseline(t, s), sockets(t, s)
	answered, _ := s.phases(t)
	eventually(t, "all are there", func() bool { return sockets(t, s) >= idle+5+3 })
	s.PHP.Kill()
	for _, phase := range []string{"running", "body"} {
		if r := <-answered[phase]; r.err == nil && r.status != http.StatusBadGateway {
			t.Errorf("%s: got status %d, want %d", phase, r.status, http.StatusBadGateway)
		}
	}
	if r := <-answered["half"]; r.failure() == nil {
		t.Errorf("half a response is taken for a whole one: %q", r.body)
	}
	for _, phase := range []string{"waiting", "queueing"} { // their turn comes when their browser has gone
		if r := <-answered[phase]; r.err != nil || r.status != http.StatusBadGateway {
			t.Errorf("%s: got %v and status %d, want %d", phase, r.err, r.status, http.StatusBadGateway)
		}
	}
	if err := s.PHP.Start(); err != nil {
		t.Fatal(err)
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

func TestNginxThatIsKilledLeavesItsScriptsTheirLocks(t *testing.T) {
	t.Parallel()
	s := phaseStack(t)
	before, idle := baseline(t, s), sockets(t, s)
	answered, endBody := s.phases(t)
	eventually(t, "all are there", func() bool { return sockets(t, s) >= idle+5+3 })
	// The kernel closes the connections one by one; the gate must not see the first without the last, and have a
	// request run in the place of another.
	mustDo(t, s.Gate.Freeze())
	s.Web.Kill()
	mustDo(t, s.Gate.Thaw())
	endBody()
	for phase, r := range answered {
		if r := <-r; r.failure() == nil {
			t.Errorf("%s: got %+v of a web server that was killed", phase, r)
		}
	}
	// Those that had not begun never do; those that had keep their connections until they end.
	eventually(t, "those that waited are gone", func() bool { return strings.Count(s.Gate.Log(), "web server hung up") >= 2 })
	if marked(s.Rig, "running.ended") || marked(s.Rig, "half.ended") {
		t.Error("a script has ended that the test did not let go")
	}
	letGo(t, s.Rig, "running")
	letGo(t, s.Rig, "half")
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
	if marked(s.Rig, "ran") {
		t.Errorf("a request ran that had waited: %q", notes(t, s.Rig, "ran"))
	}
	if err := s.Web.Start(); err != nil {
		t.Fatal(err)
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
}

// PHP-FPM dies and comes back, again and again, under load. What is taken for a whole response must be one.
func TestNoResponseLooksWholeWhichIsNot(t *testing.T) {
	t.Parallel()
	for _, unbuffered := range []bool{false, true} {
		t.Run(fmt.Sprintf("unbuffered %t", unbuffered), func(t *testing.T) {
			t.Parallel()
			s := newStack(t, stackOptions{Site: rig.Site{Unbuffered: unbuffered, Keepalive: 4}})
			want := s.get("/hash.php?mb=1", "").body
			var whole, broken atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			for range 4 {
				session := newSession()
				asking.Go(func() {
					for ctx.Err() == nil {
						r := s.get("/big.php?mb=1", session)
						if r.failure() != nil {
							broken.Add(1)
							continue
						}
						whole.Add(1)
						if got := fmt.Sprintf("%x\n", sha256.Sum256([]byte(r.body))); got != want {
							t.Errorf("a response of %d bytes looks whole, with hash %s, want %s", len(r.body), got, want)
						}
					}
				})
			}
			for range 4 {
				n := whole.Load()
				eventually(t, "some are served", func() bool { return whole.Load() > n+5 })
				n = broken.Load()
				s.PHP.Kill()
				eventually(t, "some are not", func() bool { return broken.Load() > n })
				if err := s.PHP.Start(); err != nil {
					t.Error(err)
					break
				}
			}
			stop()
			asking.Wait()
		})
	}
}

// Browsers that leave at any time harm no other browser, and lose no update of one.
func TestBrowsersThatLeaveHarmNobody(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		PHP:  rig.PHPOptions{Workers: 6},
		Gate: rig.GateOptions{Settings: `lock { max_waiters = 1000 }`},
		Site: rig.Site{Unbuffered: true},
	})
	before := baseline(t, s)
	t.Cleanup(func() { eventually(t, "nothing is left open", func() bool { return files(t, s) <= before }) })
	s.others(t)
	stays := newSession()
	var asking sync.WaitGroup
	for i := range 60 {
		asking.Go(func() {
			ctx, leave := context.WithTimeout(t.Context(), time.Duration(i*3)*time.Millisecond)
			defer leave()
			ask(s.Site, request{path: "/work.php?ms=5", session: stays, ctx: ctx})
		})
		if i%4 == 0 {
			asking.Go(func() {
				if err := s.get("/work.php?ms=5", stays).failure(); err != nil {
					t.Errorf("a browser that stays: %v", err)
				}
			})
		}
	}
	asking.Wait()
	if err := s.get("/work.php", stays).failure(); err != nil {
		t.Errorf("after all: %v", err)
	}
}
