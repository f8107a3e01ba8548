package tests

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What becomes of a request whose browser, web server or PHP-FPM goes away.

func TestAWaiterWhoseBrowserHasGoneNeverRuns(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `lock { max_wait = "50s" }`, Config: `log { level = "debug" }`}})
	session := newSession()
	baseline(t, s)
	before := sockets(t, s)
	held := s.hold(t, session, "held")

	ctx, leave := context.WithCancel(t.Context())
	gone := begin(s.Site, request{path: "/note.php?mark=ran&say=gone", session: session, ctx: ctx})
	stays := s.begin("/note.php?mark=ran&say=stays", session)
	eventually(t, "both wait", func() bool { return sockets(t, s) >= before+4 }) // the script has two
	leave()
	<-gone
	awaitLog(t, s.Gate.Server, "web server hung up")
	letGo(t, s.Rig, "held")
	(<-held).mustBe(t, "last\n")
	(<-stays).mustBe(t, "stays\n")
	if got := notes(t, s.Rig, "ran"); len(got) != 1 || got[0] != "stays" {
		t.Errorf("got %q, want only the request that stayed to have run", got)
	}
}

func TestTheLockOfAScriptWhoseBrowserHasGoneIsKept(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStack(t, stackOptions{
			PHP:  rig.PHPOptions{Listen: network},
			Gate: rig.GateOptions{Settings: `lock { abandon_after = "50s" }`},
		})
		session := newSession()
		leave(t, s.Rig, s.Site, request{path: "/wait.php?mark=held", session: session}, "held.started")
		next := s.begin("/note.php?mark=ran&say=next", session)
		s.get("/hello.php", newSession()).mustBe(t, s.get("/hello.php", "").body)
		if marked(s.Rig, "ran") {
			t.Error("the next request of the session ran concurrently with the script")
		}
		letGo(t, s.Rig, "held")
		(<-next).mustBe(t, "next\n")
		if !marked(s.Rig, "held.ended") {
			t.Error("the next request of the session ran before the script had ended")
		}
	})
}

func TestAScriptThatHangsIsAbandoned(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `lock { abandon_after = "200ms" }`}})
	session := newSession()
	leave(t, s.Rig, s.Site, request{path: "/wait.php?mark=hangs", session: session}, "hangs.started")
	s.get("/note.php?mark=ran&say=next", session).mustBe(t, "next\n")
	if marked(s.Rig, "hangs.ended") {
		t.Error("the script has ended, which should hang")
	}
	awaitLog(t, s.Gate.Server, "script abandoned")
	letGo(t, s.Rig, "hangs")
}

func TestAWebServerThatIsKilledTakesNoLockAlong(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	session := newSession()
	before := baseline(t, s)
	held := s.hold(t, session, "held")
	waiting := s.begin("/note.php?mark=ran&say=waiting", session)
	s.Web.Kill()
	if r := <-held; r.failure() == nil {
		t.Errorf("got %+v of a web server that was killed", r)
	}
	if r := <-waiting; r.failure() == nil {
		t.Errorf("got %+v of a web server that was killed", r)
	}
	if err := s.Web.Start(); err != nil {
		t.Fatal(err)
	}
	letGo(t, s.Rig, "held")
	s.get("/note.php?mark=after&say=again", session).mustBe(t, "again\n")
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

func TestAKilledPHPFPMIsABadGatewayAndItsLocksAreFree(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	session := newSession()
	before := baseline(t, s)
	held := s.hold(t, session, "held")
	s.PHP.Kill()
	if r := <-held; r.err == nil && r.status != http.StatusBadGateway {
		t.Errorf("got status %d of a script that was killed, want %d", r.status, http.StatusBadGateway)
	}
	if r := s.get("/hello.php", session); r.status != http.StatusBadGateway {
		t.Errorf("got %+v without PHP-FPM, want status %d", r, http.StatusBadGateway)
	}
	if err := s.PHP.Start(); err != nil {
		t.Fatal(err)
	}
	s.get("/note.php?mark=ran&say=again", session).mustBe(t, "again\n")
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

// files is how many files and sockets the gate has open.
func files(t testing.TB, s *stack) int {
	t.Helper()
	n, err := s.Gate.Files()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// baseline is how many the gate has open when it has served a request and nothing is left of it.
func baseline(t testing.TB, s *stack) int {
	t.Helper()
	if err := s.get("/hello.php", newSession()).failure(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no upstream connection is pooled", func() bool { return conns(t, s.PHP.Addr) == 0 })
	eventually(t, "the web server's connection is closed", func() bool { return conns(t, s.Gate.Addr) == 0 })
	return files(t, s)
}

// sockets is how many sockets the gate has open: its listeners and conns. It has other files while it looks at workers.
func sockets(t testing.TB, s *stack) int {
	t.Helper()
	n, err := s.Gate.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// conns is how many connections a listener has: those that it has accepted or has in its backlog.
func conns(t testing.TB, a rig.Addr) int {
	t.Helper()
	table, err := os.ReadFile("/proc/net/" + a.Network)
	if err != nil {
		t.Fatal(err)
	}
	if a.Network == "unix" {
		return strings.Count(string(table), a.Address) - 1 // the socket that listens
	}
	addr, err := netip.ParseAddrPort(a.Address)
	if err != nil {
		t.Fatal(err)
	}
	const established = "01" // include/net/tcp_states.h
	n, port := 0, fmt.Sprintf(":%04X", addr.Port())
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); strings.HasSuffix(f[1], port) && f[3] == established {
			n++
		}
	}
	return n
}
