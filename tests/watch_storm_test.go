package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// witness watches PHP-FPM while a crowd of requests is served: by its status page, how many workers ran a script at
// once at most; and, where there is a session file, by the kernel, how many of them waited in session_start().
func (s *stack) witness(t *testing.T, script, file string, crowd []<-chan response) (running, waiting int, responses []response) {
	t.Helper()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for _, answer := range crowd {
			responses = append(responses, <-answer)
		}
	}()
	for {
		workers, _ := s.PHP.Workers(t.Context()) // on a busy day PHP-FPM says 500: it will not wait for its own figures
		now := 0
		for _, w := range workers {
			if w.State == "Running" && strings.HasPrefix(w.URI, script) {
				now++
			}
		}
		running, waiting = max(running, now), max(waiting, lockWaiters(t, file))
		select {
		case <-served:
			return running, waiting, responses
		default:
		}
	}
}

// lockWaiters is how many processes wait for the lock of a file. The kernel has a line for each.
func lockWaiters(t *testing.T, file string) (n int) {
	t.Helper()
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil {
		return 0 // it is not there yet, or there are no files
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(":%d ", st.Ino)) {
			n++
		}
	}
	return n
}

// crowd asks n times at once.
func crowd(site *rig.Site, path, session string, n int) (all []<-chan response) {
	for range n {
		all = append(all, begin(site, request{path: path, session: session}))
	}
	return all
}

// withStraightSite adds a site that passes by the gate.
func (s *stack) withStraightSite(t *testing.T) *rig.Site {
	t.Helper()
	site := &rig.Site{FastCGI: s.PHP.Addr}
	rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	return site
}

// TestAStormOnAWatchedSessionWaitsInTheGate: one script works, and one more at most waits in PHP for it.
func TestAStormOnAWatchedSessionWaitsInTheGate(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		const n, workers = 40, 10
		s := newWatchedStack(t, handler, patientWithin, stackOptions{PHP: rig.PHPOptions{Workers: workers}})
		file := func(session string) string { return filepath.Join(s.sessions, "sess_"+session) }
		session := newSession()
		running, waiting, responses := s.witness(t, "/work.php", file(session), crowd(s.Site, "/work.php?ms=20", session, n))
		t.Logf("%d workers were busy with the session at most, and %d waited for it", running, waiting)
		if waiting > 1 {
			t.Errorf("%d workers waited for the session at once, want 1 at most", waiting)
		}
		if running > workers/2 { // those that have closed it, and come to their end, count too
			t.Errorf("%d workers were busy with the session's requests at once, want few", running)
		}
		seen := map[string]bool{}
		for _, r := range responses {
			if err := r.failure(); err != nil {
				t.Error(err)
			}
			seen[r.body] = true
		}
		if len(seen) != n {
			t.Errorf("got %d different counts of %d requests: some were lost", len(seen), n)
		}
		s.get("/count.php", session).mustBe(t, fmt.Sprintln(n))

		session = newSession()
		running, waiting, _ = s.witness(t, "/work.php", file(session), crowd(s.withStraightSite(t), "/work.php?ms=20", session, n))
		if running <= workers/2 || waiting <= 1 && s.sessions != "" {
			t.Errorf("without the gate %d workers were busy, and %d waited: this test shows nothing", running, waiting)
		}
	})
}

// TestScriptsThatStartNoSessionRunBesideEachOther: once the first have shown what they are, each of a crowd waits until
// four of it have been there. One after the other they would wait in vain.
func TestScriptsThatStartNoSessionRunBesideEachOther(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		within := patientWithin
		if handler == "memcached" { // which shows nothing of a script that has not opened its session
			within = `open_within = "10ms"`
		}
		s := newWatchedStack(t, handler, within, stackOptions{PHP: rig.PHPOptions{Workers: 10}})
		session := newSession()
		s.acquaint(t, session)
		for i := range 3 {
			s.get(fmt.Sprintf("/meet.php?n=1&mark=alone%d", i), session).mustBe(t, "met\n")
		}
		for _, answer := range crowd(s.Site, "/meet.php?n=4&mark=crowd", session, 8) {
			(<-answer).mustBe(t, "met\n") // no request has to wait for them
		}
	})
}

// TestAScriptThatStartsNoSessionGivesItsTurnAway: though the gate does not know it yet.
func TestAScriptThatStartsNoSessionGivesItsTurnAway(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		s := newWatchedStack(t, handler, `open_within = "50ms"`, stackOptions{PHP: rig.PHPOptions{Workers: 6}})
		session := newSession()
		s.acquaint(t, session)
		report := s.export("never", session)
		awaitMark(t, s.Rig, "never.closed")
		for i := range 3 {
			s.get("/work.php", session).mustBe(t, fmt.Sprintf("%d\n", i+2)) // while it works on
		}
		letGo(t, s.Rig, "never")
		(<-report).mustBe(t, "export\n")
	})
}

func TestAScriptKeepsItsTurnWhereTheConfigSaysSo(t *testing.T) {
	t.Parallel()
	s := newWatchedStack(t, "files", `open_within = "0s"`, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1)}})
	s.mustHoldUp(t, "never", "/work.php")
}

// TestTheFolderOfSessionsMayBeReplaced, and gates may begin and cease to watch, while exports come and go.
func TestTheFolderOfSessionsMayBeReplaced(t *testing.T) {
	t.Parallel()
	s := newWatchedStack(t, "files", "", stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1)}})
	watching := s.Gate.Config
	dir := s.sessions
	notHeldUp := func(mark string) {
		t.Helper()
		session := newSession()
		export := s.begin("/export.php?how=close&mark="+mark, session)
		awaitMark(t, s.Rig, mark+".closed")
		s.get("/count.php", session).mustBe(t, "1\n")
		letGo(t, s.Rig, mark)
		(<-export).mustBe(t, "export\n")
	}
	notHeldUp("before")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n") // with a session that cannot be watched
	awaitLog(t, s.Gate.Server, "cannot watch PHP sessions")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	notHeldUp("replaced")
	awaitLog(t, s.Gate.Server, "are watched again")

	reload(t, s.Gate, strings.Replace(watching, `watch     = "files"`, `watch = "none"`, 1))
	s.mustHoldUp(t, "close", "/count.php")

	reload(t, s.Gate, watching)
	notHeldUp("again")
}

func TestCheckSaysWhatKeepsSessionsFromBeingWatched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for path, note := range map[string]string{
		dir:              "",
		dir + "/missing": "no such file or directory",
		"1;" + dir:       "no session folders in it",
	} {
		file := configFile(t, fmt.Sprintf(`
gate "www" {
  listen = "unix:%[1]s/gate"
  upstream { address = "unix:%[1]s/php" }
  session {
    handler   = "files"
    watch     = "files"
    save_path = %[2]q
  }
}`, dir, path))
		code, stdout, stderr := run(t, "check", "--config", file)
		if code != 0 || !strings.Contains(stdout, note) || (note == "") != !strings.Contains(stdout, "cannot watch PHP sessions") {
			t.Errorf("%s: got code %d, %q and %q, want a note of %q", path, code, stdout, stderr, note)
		}
	}
}
