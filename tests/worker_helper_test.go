package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// helper is an `fpm-gate helper` of an unprivileged user, with the two capabilities and no others.
type helper struct {
	cmd    *exec.Cmd
	client *phpworker.Helper
	log    *strings.Builder
}

// startHelper starts one, which ends with the test.
func startHelper(t *testing.T, caps []uintptr, args ...string) *helper {
	t.Helper()
	needPtrace(t)
	dir, err := os.MkdirTemp("", "fpm-gate-helper-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const unprivileged = 65534
	binary, socket := filepath.Join(dir, "fpm-gate"), filepath.Join(dir, "socket")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Chown(dir, unprivileged, unprivileged), rig.CopyProgram(gateBinary, binary)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := &helper{log: new(strings.Builder), client: &phpworker.Helper{Path: socket, Timeout: requestTimeout}}
	h.cmd = exec.Command(binary, append([]string{"helper", "--listen", "unix:" + socket}, args...)...)
	h.cmd.Dir, h.cmd.Stderr = "/", h.log
	h.cmd.Env = []string{raceOptions}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: unprivileged, Gid: unprivileged}, AmbientCaps: caps}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Process.Signal(syscall.SIGCONT)
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		if err := h.cmd.Wait(); err != nil && !h.killed() {
			t.Errorf("the helper has ended: %v", err)
		}
		checkLog(t, "helper", h.log.String())
		if t.Failed() {
			t.Logf("log of the helper:\n%s", h.log)
		}
	})
	eventually(t, "the helper listens", func() bool {
		nc, err := net.Dial("unixpacket", socket)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	return h
}

func (h *helper) killed() bool {
	status, ok := h.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// helperCaps are all that a helper needs.
var helperCaps = []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_KILL}

// TestAHelperDoesAllThatItIsFor, as an unprivileged user, over unix sockets and TCP.
func TestAHelperDoesAllThatItIsFor(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperCaps)
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		t.Run(network.Network, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, "files", rig.PHPOptions{Listen: network})
			session := newSession()
			s := p.run(t, "/steps.php?steps=start,close", session)
			s.await(0)
			w := s.find(h.client)
			mustSee(t, w, phpworker.Session{Status: phpworker.None, Name: "PHPSESSID", Handler: "files"})
			s.next(0)
			s.await(1)
			mustSee(t, w, phpworker.Session{Status: phpworker.Active, ID: session, Name: "PHPSESSID", Handler: "files"})
			a, err := w.Activity()
			if err != nil || a.PID != w.PID() || a.State == "" || !strings.Contains(a.Program, "php-fpm") {
				t.Errorf("got %+v, %v", a, err)
			}
			if err := w.Interrupt("another"); !errors.Is(err, phpworker.ErrSession) {
				t.Errorf("got %v, want %v", err, phpworker.ErrSession)
			}
			if err := w.Interrupt(session); err != nil {
				t.Fatal(err)
			}
			if got, want := s.response(), "Maximum execution time"; !strings.Contains(got, want) {
				t.Errorf("got the response %q, want %q in it", got, want)
			}
			if err := w.Terminate(""); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the worker has ended", func() bool {
				_, err := w.Session()
				return errors.Is(err, phpworker.ErrGone)
			})
		})
	}
}

// TestWhatAHelperLacks: each capability that is missing is named, and what does not take it works.
func TestWhatAHelperLacks(t *testing.T) {
	t.Parallel()
	p := newPool(t, "files", rig.PHPOptions{})
	session := newSession()
	s := p.run(t, "/steps.php?steps=start", session)
	s.await(0)
	none, blind, some, all := startHelper(t, nil), startHelper(t, helperCaps[1:]), startHelper(t, helperCaps[:1]),
		startHelper(t, helperCaps)
	for name, c := range map[string]struct {
		*helper
		want  error
		lacks string
	}{
		"without any":            {none, phpworker.ErrRights, "no CAP_SYS_PTRACE and no CAP_KILL"},
		"without CAP_SYS_PTRACE": {blind, phpworker.ErrRights, "no CAP_SYS_PTRACE"},
		"without CAP_KILL":       {some, phpworker.ErrNoKill, "no CAP_KILL"},
		"with both":              {all, nil, "<nil>"},
	} {
		if err := c.client.Ready(); !errors.Is(err, c.want) || !strings.HasSuffix(fmt.Sprint(err), c.lacks) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	_, err := none.client.Find(s.raw())
	if !errors.Is(err, phpworker.ErrRights) || !strings.Contains(err.Error(), "CAP_SYS_PTRACE") {
		t.Errorf("without any: got %v", err)
	}
	w := s.find(some.client)
	mustSee(t, w, phpworker.Session{Status: phpworker.None, Name: "PHPSESSID", Handler: "files"})
	if err := w.Interrupt(""); !errors.Is(err, phpworker.ErrRights) || !strings.Contains(err.Error(), "CAP_KILL") {
		t.Errorf("without CAP_KILL: got %v", err)
	}
	s.next(0)
	s.await(1)
}

// TestAHelperReachesNoOtherProgram: what listens must be a PHP-FPM, by the pattern that the operator gave.
func TestAHelperReachesNoOtherProgram(t *testing.T) {
	t.Parallel()
	p := newPool(t, "files", rig.PHPOptions{})
	s := p.run(t, "/steps.php?steps=start", newSession())
	s.await(0)
	path, err := rig.Find("php-fpm")
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]error{
		filepath.Base(path): nil,
		path:                nil,
		"php-fpm0*":         phpworker.ErrProgram,
		"/opt/*/php-fpm*":   phpworker.ErrProgram,
	} {
		w, err := startHelper(t, helperCaps, "--program", pattern).client.Find(s.raw())
		if err == nil {
			w.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("program %s: got %v, want %v", pattern, err, want)
		}
	}
	h := startHelper(t, helperCaps)
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "own"), "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		nc, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		raw, err := nc.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.client.Find(raw); !errors.Is(err, phpworker.ErrWaiting) {
			t.Errorf("%s, in a backlog: got %v, want %v", network, err, phpworker.ErrWaiting)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		eventually(t, "another program is distinguished from PHP-FPM", func() bool { // by TCP, all processes are looked at once a second
			_, err := h.client.Find(raw)
			if err == nil || !errors.Is(err, phpworker.ErrProgram) && !errors.Is(err, phpworker.ErrGone) {
				t.Fatalf("%s, another program: got %v, want %v", network, err, phpworker.ErrProgram)
			}
			return errors.Is(err, phpworker.ErrProgram)
		})
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.client.Find(raw); err == nil {
		t.Error("a file is taken for a connection")
	}
}

// TestAThousandQuestionsAtOnce, about workers that are served meanwhile.
func TestAThousandQuestionsAtOnce(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperCaps)
	p := newPool(t, "files", rig.PHPOptions{Workers: 10})
	var scripts []*script
	for range 10 {
		s := p.run(t, "/steps.php?steps=start", newSession())
		s.await(0)
		scripts = append(scripts, s)
	}
	pids := make([]sync.Map, len(scripts))
	var asked sync.WaitGroup
	for n := range 1000 {
		s := scripts[n%len(scripts)]
		asked.Go(func() {
			w, err := h.client.Find(s.raw())
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			pids[n%len(scripts)].Store(w.PID(), true)
			if _, err := w.Session(); err != nil {
				t.Error(err)
			}
		})
	}
	asked.Wait()
	seen := make(map[any]bool)
	for n := range pids {
		pids[n].Range(func(pid, _ any) bool {
			seen[pid] = true
			return true
		})
	}
	if got, want := len(seen), len(scripts); got != want {
		t.Errorf("%d connections are served by %d workers, want %d", len(scripts), got, want)
	}
}

// TestAHelperThatDiesOrHangs: each has a clear word, and PHP-FPM is no worse off.
func TestAHelperThatDiesOrHangs(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperCaps)
	p := newPool(t, "files", rig.PHPOptions{})
	s := p.run(t, "/steps.php?steps=start", newSession())
	s.await(0)
	hurried := &phpworker.Helper{Path: h.client.Path, Timeout: 100 * time.Millisecond}
	// Until it hangs, the helper has to answer in time on a busy machine too.
	w, before := s.find(h.client), s.find(&phpworker.Helper{Path: h.client.Path, Timeout: 5 * time.Second})
	h.stop(t)
	_, err := before.Session()
	mustBeHelper(t, "hangs", err, "has not answered")
	_, err = before.Session()
	mustBeHelper(t, "hung before", err, "has not answered")
	_, err = hurried.Find(s.raw())
	mustBeHelper(t, "hangs from the start", err, "has not answered")
	mustDo(t, h.cmd.Process.Kill())
	_, err = w.Session()
	mustBeHelper(t, "has died", err, "it has closed the connection")
	eventually(t, "the helper's socket is closed", func() bool {
		_, err = h.client.Find(s.raw())
		return strings.Contains(fmt.Sprint(err), "systemctl enable --now")
	})
	mustBeHelper(t, "is not there", err, "systemctl enable --now")
	if !phpworker.Temporary(err) {
		t.Error("a helper that is not there is taken to be away for good")
	}
	s.next(0)
	s.await(1)
	s.next(1)
	s.response()
}

// stop stops the helper. The signal takes a moment to reach all of its threads.
func (h *helper) stop(t *testing.T) {
	t.Helper()
	pid := h.cmd.Process.Pid
	mustDo(t, syscall.Kill(pid, syscall.SIGSTOP))
	eventually(t, "the helper has stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		mustDo(t, err)
		for _, thread := range threads {
			stat, _ := os.ReadFile(thread)
			if _, state, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return true
	})
}

func mustBeHelper(t *testing.T, how string, err error, text string) {
	t.Helper()
	if !errors.Is(err, phpworker.ErrHelper) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("a helper that %s: got %v, want %v with %q", how, err, phpworker.ErrHelper, text)
	}
}

// TestAConnectionThatWasPassedEndsForPHP: while a helper hangs, it has the connection too, and shutting it down is what
// PHP-FPM notices.
func TestAConnectionThatWasPassedEndsForPHP(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperCaps)
	p := newPool(t, "files", rig.PHPOptions{Workers: 1})
	s := p.run(t, "/steps.php?steps=start", newSession())
	s.await(0)
	h.stop(t)
	_, err := (&phpworker.Helper{Path: h.client.Path, Timeout: 10 * time.Millisecond}).Find(s.raw())
	mustBeHelper(t, "hangs", err, "has not answered")
	s.next(0)
	s.next(1)
	s.response()
	mustDo(t, s.raw().Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }))
	s.nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
	defer cancel()
	next := p.run(t, "/steps.php?steps=start", newSession()) // by the only worker
	for !marked(p.Rig, next.mark+".0") && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("the worker still waits for the connection that was shut down")
	}
}
