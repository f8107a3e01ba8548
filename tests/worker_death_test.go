package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// TestAWorkerMayDieBetweenAnyTwoSteps: all that is said of it is that it is gone, and nothing is left open here.
func TestAWorkerMayDieBetweenAnyTwoSteps(t *testing.T) {
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		t.Run(network.Network, func(t *testing.T) { killWorkers(t, newPool(t, "files", rig.PHPOptions{Workers: 3, Listen: network})) })
	}
}

// killWorkers kills a hundred workers while they are looked at.
func killWorkers(t *testing.T, p *pool) {
	t.Helper()
	local := &phpworker.Local{}
	before := openFiles(t)
	for range 100 {
		s := p.run(t, "/steps.php?steps=start", newSession())
		s.await(0)
		w, err := local.Find(s.raw())
		if err != nil {
			t.Fatal(err)
		}
		pid := w.PID()
		w.Close()
		var asked sync.WaitGroup
		for _, ask := range []func(phpworker.Worker) error{
			func(w phpworker.Worker) error { _, err := w.Session(); return err },
			func(w phpworker.Worker) error { _, err := w.Activity(); return err },
			func(w phpworker.Worker) error { return w.Interrupt("never this one") },
		} {
			asked.Go(func() { askUntilGone(t, local, s.raw(), ask) })
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		asked.Wait()
		s.nc.Close()
	}
	eventually(t, "nothing is left open", func() bool { return openFiles(t) <= before })
}

// askUntilGone finds the worker of a connection and asks about it, again and again, until it is gone.
func askUntilGone(t *testing.T, f phpworker.Finder, raw syscall.RawConn, ask func(phpworker.Worker) error) {
	for {
		w, err := f.Find(raw)
		if err == nil {
			err = ask(w)
			w.Close()
		}
		switch {
		case errors.Is(err, phpworker.ErrGone):
			return
		case err != nil && !errors.Is(err, phpworker.ErrSession):
			t.Errorf("got %v, want %v", err, phpworker.ErrGone)
			return
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// ownProgram is a PHP-FPM that runs a copy of its program.
type ownProgram struct {
	path, socket string
}

// startOwnProgram starts a PHP-FPM from a copy of the system's, which change may change, in a folder of its own.
func startOwnProgram(t *testing.T, r *rig.Rig, change func([]byte) []byte) ownProgram {
	t.Helper()
	original, err := rig.Find("php-fpm")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	own := ownProgram{filepath.Join(dir, "php-fpm-own"), filepath.Join(dir, "s")}
	config := filepath.Join(dir, "fpm.conf")
	pool := fmt.Sprintf("[global]\nerror_log=%s/log\n[own]\nuser=root\ngroup=root\nlisten=%s\npm=static\npm.max_children=2\n", dir, own.socket)
	for _, err := range []error{rig.WriteProgram(own.path, change(text)), os.WriteFile(config, []byte(pool), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(own.path, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	eventually(t, "PHP-FPM listens", func() bool {
		nc, err := net.Dial("unix", own.socket)
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	return own
}

// run runs steps.php there.
func (o ownProgram) run(t *testing.T, r *rig.Rig) *script {
	t.Helper()
	p := &pool{Rig: r, PHP: &rig.PHPFPM{Server: &rig.Server{Addr: rig.Addr{Network: "unix", Address: o.socket}}}}
	s := p.run(t, "/steps.php?steps=start", newSession())
	s.await(0)
	return s
}

func unchanged(text []byte) []byte { return text }

// TestAnUpgradeWhilePHPFPMRuns: the program that runs is no longer the one that its path leads to.
func TestAnUpgradeWhilePHPFPMRuns(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	r := newRig(t, "php-fpm")
	own := startOwnProgram(t, r, unchanged)
	for _, err := range []error{os.Remove(own.path), os.WriteFile(own.path, []byte("another program"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := own.run(t, r)
	w := s.find(&phpworker.Local{Programs: []string{own.path}})
	mustSee(t, w, phpworker.Session{Status: phpworker.None, Name: "PHPSESSID", Handler: "files"})
	a, err := w.Activity()
	if err != nil || a.Program != own.path {
		t.Errorf("got %+v, %v", a, err)
	}
}

// TestAPHPThatIsNotUnderstoodIsRefused, with the reason, instead of being misread.
func TestAPHPThatIsNotUnderstoodIsRefused(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	r := newRig(t, "php-fpm")
	own := startOwnProgram(t, r, func(text []byte) []byte {
		return []byte(strings.ReplaceAll(string(text), "\x00ps_globals\x00", "\x00ps_globalz\x00"))
	})
	_, err := (&phpworker.Local{Programs: []string{own.path}}).Find(own.run(t, r).raw())
	if !errors.Is(err, phpworker.ErrLayout) || !strings.Contains(err.Error(), "ps_globals") || phpworker.Temporary(err) {
		t.Errorf("got %v", err)
	}
}

// TestAnUnknownVersionIsBelievedWhenItWasSeenAtWork: until a session was seen open, its status is not known.
func TestAnUnknownVersionIsBelievedWhenItWasSeenAtWork(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	r := newRig(t, "php-fpm")
	own := startOwnProgram(t, r, func(text []byte) []byte {
		return regexp.MustCompile(`X-Powered-By: PHP/[0-9]\.`).ReplaceAll(text, []byte("X-Powered-By: PHP/9."))
	})
	s := own.run(t, r)
	w := s.find(&phpworker.Local{Programs: []string{own.path}})
	mustSee(t, w, phpworker.Session{Status: phpworker.Unknown, Name: "PHPSESSID", Handler: "files"})
	s.next(0)
	s.await(1)
	if got, err := w.Session(); err != nil || got.Status != phpworker.Active {
		t.Errorf("got %+v (%v), want it open", got, err)
	}
	s.next(1)
	s.response()
	mustSee(t, w, phpworker.Session{Status: phpworker.None, Name: "PHPSESSID", Handler: "files"})
}
