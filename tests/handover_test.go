package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// inUnit makes a gate the main process of a unit. systemd is a program that names the job which is under way.
func inUnit(t *testing.T, job string) func(*activated) {
	t.Helper()
	bin, runtime := t.TempDir(), t.TempDir()
	systemctl := fmt.Sprintf(`#!/bin/sh
case "$1" in
show) echo process ;;
*) echo '7 other.service restart waiting'; echo '8 gate.service %s running' ;;
esac
`, job)
	if err := rig.WriteProgram(filepath.Join(bin, "systemctl"), []byte(systemctl)); err != nil {
		t.Fatal(err)
	}
	return func(a *activated) {
		a.args = append(a.args, "--unit", "gate.service")
		a.env = append(a.env, "RUNTIME_DIRECTORY="+runtime, "PATH="+bin+":"+os.Getenv("PATH"))
	}
}

// withQueueRoutes adds queueRoutes to the config.
func withQueueRoutes(longest int) func(*activated) {
	return func(a *activated) {
		a.t.Helper()
		config, err := os.ReadFile(a.config)
		if err != nil {
			a.t.Fatal(err)
		}
		text := strings.Replace(string(config), "  upstream", queueRoutes(longest)+"\n  upstream", 1)
		if err := os.WriteFile(a.config, []byte(text), 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *activated) text() string {
	a.t.Helper()
	text, err := os.ReadFile(a.log.Name())
	if err != nil {
		a.t.Fatal(err)
	}
	return string(text)
}

// restart ends the main process and starts the next, as systemd does.
func (a *activated) restart() {
	a.t.Helper()
	a.stop()
	a.start()
}

// unitStack is a web server before a gate in a unit.
func unitStack(t *testing.T, job string, change ...func(*activated)) (*rig.Rig, *rig.Site, *activated) {
	t.Helper()
	r := newRig(t, "nginx", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 8})
	gate, address := activate(t, r, "unix", php.Addr, append([]func(*activated){inUnit(t, job)}, change...)...)
	site := &rig.Site{FastCGI: address}
	startNginx(t, r, site)
	return r, site, gate
}

// awaitEnds waits until a number of gates have ended, by their logs.
func (a *activated) awaitEnds(n int) {
	a.t.Helper()
	eventually(a.t, "the processes that have handed over end", func() bool {
		return strings.Count(a.text(), "all requests are done") >= n
	})
}

// awaitServing waits until a number of gates have begun to serve, by their logs.
func (a *activated) awaitServing(n int) {
	a.t.Helper()
	eventually(a.t, "the gate serves", func() bool { return strings.Count(a.text(), "serving: ") >= n })
}

func TestARestartOfAUnitDoesNotWaitForAScript(t *testing.T) {
	t.Parallel()
	r, site, gate := unitStack(t, "restart", withQueueRoutes(1))
	s := &stack{Rig: r, Site: site}
	session := newSession()
	held := begin(site, request{path: "/wait.php?mark=a", session: session})
	awaitMark(t, r, "a.started")
	waiting := begin(site, request{path: "/wait.php?mark=b", session: session})
	s.awaitQueue(t, session, 1)
	gate.restart()
	ask(site, request{path: "/hello.php"}).mustBe(t, "hello\n") // the script is still running
	next := begin(site, request{path: "/wait.php?mark=c", session: session})
	s.awaitQueue(t, session, 1) // b waits in the old process
	gate.restart()              // once more, while the first one still serves
	ask(site, request{path: "/hello.php"}).mustBe(t, "hello\n")
	last := begin(site, request{path: "/wait.php?mark=d", session: session})
	for i, mark := range []string{"a", "b", "c", "d"} {
		awaitMark(t, r, mark+".started")
		time.Sleep(200 * time.Millisecond) // in which the next one would begin, if it did not wait
		for _, later := range []string{"b", "c", "d"}[i:] {
			if marked(r, later+".started") {
				t.Errorf("script %s has begun while %s runs, of the same session", later, mark)
			}
		}
		letGo(t, r, mark)
		(<-[]<-chan response{held, waiting, next, last}[i]).mustBe(t, "last\n")
	}
	gate.awaitEnds(2)
}

// A script that has closed its session holds up no request of it that comes to the next process.
func TestARestartOfAUnitSeesSessionsThatAreClosed(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	r, site, gate := unitStack(t, "restart")
	for range 40 { // afterwards the gate knows this PHP, and looks only where a request waits
		ask(site, request{path: "/count.php", session: newSession()})
	}
	session := newSession()
	export := begin(site, request{path: "/export.php?how=close&mark=a", session: session})
	awaitMark(t, r, "a.closed")
	gate.restart()
	if answer := ask(site, request{path: "/count.php", session: session}); answer.failure() != nil {
		t.Error(answer.failure())
	}
	if marked(r, "a.ended") {
		t.Error("the request waited for the script to end, though its session was closed")
	}
	letGo(t, r, "a")
	if answer := <-export; answer.failure() != nil {
		t.Error(answer.failure())
	}
	gate.awaitEnds(1)
}

// controlGroup makes a systemctl of a systemd that would end all processes of the unit.
func controlGroup(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "systemctl")
	if err := rig.WriteProgram(path, []byte("#!/bin/sh\necho control-group\n")); err != nil {
		t.Fatal(err)
	}
	return path
}

// Where no other process comes, or none can be handed over to, the main process waits for the last request.
func TestAUnitThatCannotHandOverWaitsForScripts(t *testing.T) {
	t.Parallel()
	withControlGroup := filepath.Dir(controlGroup(t)) + ":" + os.Getenv("PATH")
	for name, c := range map[string]struct {
		job, env, log string
	}{
		"at a stop":                  {"stop", "", ""},
		"without systemd":            {"restart", "PATH=/nowhere", "systemctl"},
		"without a runtime folder":   {"restart", "RUNTIME_DIRECTORY=", "RuntimeDirectory="},
		"with one that is not there": {"restart", "RUNTIME_DIRECTORY=/nowhere", "no such file"},
		"where systemd ends it":      {"restart", "PATH=" + withControlGroup, "KillMode=control-group"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, site, gate := unitStack(t, c.job, func(a *activated) { a.env = append(a.env, c.env) })
			held := begin(site, request{path: "/wait.php?mark=a", session: newSession()})
			awaitMark(t, r, "a.started")
			time.AfterFunc(500*time.Millisecond, func() { letGo(t, r, "a") })
			gate.stop()
			if !marked(r, "a.ended") {
				t.Error("the main process has ended before the script")
			}
			(<-held).mustBe(t, "last\n")
			if !strings.Contains(gate.text(), c.log) || strings.Contains(gate.text(), "handing over") {
				t.Errorf("the log does not have %q, or has a hand-over", c.log)
			}
			gate.start()
			gate.awaitServing(2)
		})
	}
}

// serving returns the process that serves, which the main process has started.
func (a *activated) serving() int {
	a.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", a.cmd.Process.Pid))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, file := range threads {
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
	}
	a.t.Fatal("the main process has no process that serves")
	return 0
}

// systemctl kill sends a signal to all processes of a unit, and the main process passes its own on.
func TestASignalToAllProcessesOfAUnitIsOne(t *testing.T) {
	t.Parallel()
	r, site, gate := unitStack(t, "stop")
	held := begin(site, request{path: "/wait.php?mark=a", session: newSession()})
	awaitMark(t, r, "a.started")
	pid := gate.serving()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(500*time.Millisecond, func() { letGo(t, r, "a") })
	gate.stop()
	(<-held).mustBe(t, "last\n")
	gate.start()
	gate.awaitServing(2)
}

// A main process that is killed is followed by another one: what it has served goes on.
func TestAUnitGoesOnWhenItsMainProcessIsKilled(t *testing.T) {
	t.Parallel()
	r, site, gate := unitStack(t, "stop")
	session := newSession()
	held := begin(site, request{path: "/wait.php?mark=a", session: session})
	awaitMark(t, r, "a.started")
	if err := gate.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = gate.cmd.Wait()
	eventually(t, "the process that serves leaves the unit", func() bool {
		return strings.Contains(gate.text(), "handing over")
	})
	gate.start()
	next := begin(site, request{path: "/wait.php?mark=b", session: session})
	ask(site, request{path: "/hello.php"}).mustBe(t, "hello\n")
	if marked(r, "b.started") {
		t.Error("two scripts of one session run at once")
	}
	letGo(t, r, "a")
	(<-held).mustBe(t, "last\n")
	letGo(t, r, "b")
	(<-next).mustBe(t, "last\n")
}

// Where PHP does not lock, nothing but the gate keeps the updates of a session from being lost; here they are made after
// fastcgi_finish_request().
func TestRestartsOfAUnitLoseNoUpdate(t *testing.T) {
	t.Parallel()
	r, site, gate := unitStack(t, "restart")
	sessions := []string{newSession(), newSession(), newSession()}
	counts := make([]atomic.Int64, len(sessions))
	var pages atomic.Int64
	var visitors sync.WaitGroup
	over := make(chan struct{})
	for n := range 9 {
		visitors.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				n := n % len(sessions)
				ask(site, request{method: "POST", path: "/unlocked.php?ms=150", session: sessions[n]}).mustBe(t, "counted\n")
				counts[n].Add(1)
				pages.Add(1)
			}
		})
	}
	// In every other restart a script of another session outlasts the old process's drain, so that the next process
	// certainly finds it. Whether the visitors' scripts outlast it in the others is up to chance.
	const restarts = 6
	for n := range restarts {
		before := pages.Load()
		eventually(t, "pages are served", func() bool { return pages.Load() > before+10 })
		if n%2 == 1 {
			gate.restart()
			continue
		}
		mark := fmt.Sprint("long", n)
		long := begin(site, request{path: "/wait.php?mark=" + mark, session: newSession()})
		awaitMark(t, r, mark+".started")
		taken := strings.Count(gate.text(), "locks are taken over")
		gate.restart()
		eventually(t, "the next process takes the locks over", func() bool {
			return strings.Count(gate.text(), "locks are taken over") > taken
		})
		letGo(t, r, mark)
		(<-long).mustBe(t, "last\n")
	}
	close(over)
	visitors.Wait()
	for n, session := range sessions {
		want := fmt.Sprintf("%d\n", counts[n].Load())
		ask(site, request{path: "/unlocked.php?read=1", session: session}).mustBe(t, want)
	}
	t.Logf("%d pages in %d restarts, %d of them with a hand-over", pages.Load(), restarts,
		strings.Count(gate.text(), "handing over"))
}
