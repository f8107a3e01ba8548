package tests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// watchable are the session handlers that the gate can watch.
var watchable = map[string]struct {
	programs []string
	start    func(*testing.T, *watchedStack) map[string]string // returns PHP's settings
}{
	"files": {nil, func(t *testing.T, s *watchedStack) map[string]string {
		s.sessions = filepath.Join(t.TempDir(), "sessions")
		if err := os.Mkdir(s.sessions, 0o700); err != nil {
			t.Fatal(err)
		}
		return map[string]string{"session.save_path": s.sessions}
	}},
	"memcached": {[]string{"memcached", "php-memcached"}, func(t *testing.T, s *watchedStack) map[string]string {
		// Of two, which has a session's lock is php-memcached's to choose.
		one, two := rigtest.Start(t, s.Memcached, rig.StoreOptions{}), rigtest.Start(t, s.Memcached, rig.StoreOptions{})
		ini := rig.MemcachedSessions(one)
		ini["session.save_path"] += "," + two.Addr.Address
		ini["memcached.sess_lock_retries"] = "10000"
		ini["memcached.sess_lock_wait_min"], ini["memcached.sess_lock_wait_max"] = "5", "5"
		return ini
	}},
}

// watchedStack is a stack whose gate watches the sessions of PHP.
type watchedStack struct {
	stack
	sessions string // the folder of their files; empty: there are none
}

// newWatchedStack starts such a stack. PHP's settings may differ from what the gate's config says. settings are more of the gate's session block, and o.Gate.Settings more of its
// gate block.
func newWatchedStack(t *testing.T, handler, settings string, o stackOptions) *watchedStack {
	t.Helper()
	h := watchable[handler]
	s := &watchedStack{stack: stack{Rig: newRig(t, append(h.programs, "nginx", "php-fpm")...)}}
	ini := h.start(t, s)
	savePath := ini["session.save_path"]
	maps.Copy(ini, o.PHP.INI)
	o.PHP.INI = ini
	s.PHP = rigtest.Start(t, s.PHPFPM, o.PHP)
	o.Gate.Upstream = s.PHP.Addr
	if !strings.Contains(o.Gate.Settings, "lock {") {
		o.Gate.Settings += "\n  lock { max_wait = \"55s\" }" // no request shall give up because the machine is slow
	}
	o.Gate.Settings += fmt.Sprintf(`
  session {
    handler   = %q
    save_path = %q
    watch     = %[1]q
    %[3]s
  }`, handler, savePath, settings)
	s.Gate = startGate(t, s.Rig, o.Gate)
	s.Site = &o.Site
	s.Site.FastCGI = s.Gate.Addr
	s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
	return s
}

// acquaint has PHP use a session, for so long that the gate sees it on a busy machine too: then it knows where PHP keeps
// it. The session counts one.
func (s *watchedStack) acquaint(t *testing.T, session string) {
	t.Helper()
	s.get("/work.php?ms=500", session).mustBe(t, "1\n")
}

// onEachHandler runs a test with each handler that can be watched.
func onEachHandler(t *testing.T, test func(t *testing.T, handler string)) {
	t.Parallel()
	for handler := range watchable {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			test(t, handler)
		})
	}
}

// TestAnExportThatHasClosedItsSessionHoldsNobodyUp has a progress bar ask while an export works, by every way in which
// PHP programmers give a session back early.
func TestAnExportThatHasClosedItsSessionHoldsNobodyUp(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		s := newWatchedStack(t, handler, "", stackOptions{PHP: rig.PHPOptions{Workers: 9}})
		for how, count := range map[string]int{"close": 1, "abort": 0, "read": 0, "again": 2} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				session := newSession()
				s.acquaint(t, session)
				export := s.export(how, session)
				awaitMark(t, s.Rig, how+".closed")
				var slowest time.Duration
				for range 10 {
					start := time.Now()
					if r := s.get("/count.php", session); r.failure() != nil {
						t.Fatalf("a poll of the progress: %v", r.failure())
					}
					slowest = max(slowest, time.Since(start))
				}
				t.Logf("the slowest of 10 polls took %v", slowest.Round(100*time.Microsecond))
				s.get("/work.php", session).mustBe(t, fmt.Sprintf("%d\n", min(count, 1)+2))
				letGo(t, s.Rig, how) // it works still
				(<-export).mustBe(t, "export\n")
				s.get("/count.php", session).mustBe(t, fmt.Sprintf("%d\n", count+2))
			})
		}
	})
}

// export begins an export that gives its session back in that way. Its mark is its way.
func (s *stack) export(how, session string) <-chan response {
	return s.begin("/export.php?mark="+how+"&how="+how, session)
}

// TestAnExportHoldsItsLockWhereNothingIsWatched is the same without save_path.
func TestAnExportHoldsItsLockWhereNothingIsWatched(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1) + `
  session {
    handler = "files"
    watch   = "none"
  }`}})
	s.mustHoldUp(t, "close", "/count.php")
}

// mustHoldUp fails the test unless an export has a request of its session wait for its end. The settings need queueRoutes.
func (s *stack) mustHoldUp(t *testing.T, how, path string) {
	t.Helper()
	session := newSession()
	export := s.export(how, session)
	awaitMark(t, s.Rig, how+".closed")
	next := s.begin(path, session)
	s.awaitQueue(t, session, 1)
	letGo(t, s.Rig, how)
	(<-export).mustBe(t, "export\n")
	(<-next).mustBe(t, "1\n")
}

// patientWithin is for tests in which no script shall lose its turn because the machine is slow.
const patientWithin = `open_within = "60s"`

// TestALockOutlivesItsRequest: after fastcgi_finish_request() the script still has its session.
func TestALockOutlivesItsRequest(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		s := newWatchedStack(t, handler, patientWithin, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(3)}})
		session := newSession()
		held := s.begin("/wait.php?session=1&mark=first", session)
		awaitMark(t, s.Rig, "first.started")
		finish := s.export("finish", session)
		s.awaitQueue(t, session, 1)
		next := s.begin("/work.php", session)
		s.awaitQueue(t, session, 2)
		letGo(t, s.Rig, "first")
		(<-held).mustBe(t, "last\n")
		(<-finish).mustBe(t, "export\n") // at once
		awaitMark(t, s.Rig, "finish.closed")
		s.awaitQueue(t, session, 1)
		eventually(t, "one worker is busy: the others wait in the gate", func() bool {
			st, err := s.PHP.Status(t.Context())
			return err == nil && st.Active == 1
		})
		letGo(t, s.Rig, "finish")
		(<-next).mustBe(t, "3\n")
	})
}

// TestALockThatNobodyWaitedForOutlivesItsRequestToo, which takes a handler that can be watched all the time.
func TestALockThatNobodyWaitedForOutlivesItsRequestToo(t *testing.T) {
	t.Parallel()
	s := newWatchedStack(t, "files", patientWithin, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1)}})
	session := newSession()
	(<-s.export("finish", session)).mustBe(t, "export\n")
	awaitMark(t, s.Rig, "finish.closed")
	next := s.begin("/work.php", session)
	s.awaitQueue(t, session, 1)
	letGo(t, s.Rig, "finish")
	(<-next).mustBe(t, "2\n")
}

// TestASessionThatIsDestroyedOrRenewedHoldsNobodyUp: the id that the browser still has, and the new one.
func TestASessionThatIsDestroyedOrRenewedHoldsNobodyUp(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		s := newWatchedStack(t, handler, "", stackOptions{PHP: rig.PHPOptions{Workers: 6}})
		for _, how := range []string{"destroy", "renew"} {
			session := newSession()
			s.acquaint(t, session)
			export := s.export(how, session)
			awaitMark(t, s.Rig, how+".closed")
			s.get("/work.php", session).mustBe(t, "1\n") // while the export goes on
			letGo(t, s.Rig, how)
			r := <-export
			r.mustBe(t, "export\n")
			if cookie := r.header.Get("Set-Cookie"); (how == "renew") != strings.HasPrefix(cookie, "PHPSESSID=") {
				t.Errorf("%s: got cookie %q", how, cookie)
			}
		}
	})
}

// TestAScriptWhoseBrowserHasGoneHoldsNoClosedSession: it works on, and holds up no request.
func TestAScriptWhoseBrowserHasGoneHoldsNoClosedSession(t *testing.T) {
	t.Parallel()
	s := newWatchedStack(t, "files", "", stackOptions{Gate: rig.GateOptions{Settings: `lock { abandon_after = "60s" }`}})
	session := newSession()
	leave(t, s.Rig, s.Site, request{path: "/export.php?mark=close&how=close", session: session}, "close.closed")
	s.get("/work.php", session).mustBe(t, "2\n")
	letGo(t, s.Rig, "close")
}

// TestSessionsInFoldersBelowAreWatched is PHP's save_path "1;/path", whose folders an operator makes.
func TestSessionsInFoldersBelowAreWatched(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := filepath.Join(dir, sessionPrefix[:1])
	if err := os.Mkdir(first, 0o700); err != nil {
		t.Fatal(err)
	}
	s := newStack(t, stackOptions{
		PHP:  rig.PHPOptions{INI: map[string]string{"session.save_path": "1;" + dir}},
		Gate: rig.GateOptions{Settings: fmt.Sprintf("session {\n handler = \"files\"\n save_path = %q\n watch = \"files\"\n}", "1;"+dir)},
	})
	session := newSession()
	export := s.export("close", session)
	awaitMark(t, s.Rig, "close.closed")
	s.get("/work.php", session).mustBe(t, "2\n")
	letGo(t, s.Rig, "close")
	(<-export).mustBe(t, "export\n")
	if _, err := os.Stat(filepath.Join(first, "sess_"+session)); err != nil {
		t.Error(err)
	}
}
