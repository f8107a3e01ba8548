package systemd

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

const (
	helperService = "fpm-gate-helper.service"
	helperSocket  = "fpm-gate-helper.socket"
)

// testHelper asks the helper of the package about a worker of Debian's own PHP-FPM, whose user is www-data.
func testHelper(t *testing.T) {
	for _, ask := range []struct{ want, command string }{
		{"active", "systemctl is-active " + helperSocket},
		{"enabled", "systemctl is-enabled " + helperSocket},
		{"root:fpm-gate 660", "stat -c '%U:%G %a' " + phpworker.DefaultHelper},
	} {
		if got := strings.TrimSpace(output("sh", "-c", ask.command)); got != ask.want {
			t.Errorf("%s: got %s, want %s", ask.command, got, ask.want)
		}
	}
	w, err := (&phpworker.Helper{Timeout: time.Minute}).Find(acceptedByPHP(t)) // starts the service
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := phpworker.Session{Status: phpworker.None, Name: "PHPSESSID", Handler: "files"}
	if got, err := w.Session(); err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
	a, err := w.Activity()
	if err != nil || a.PID != w.PID() || a.Version == "" || a.Syscall == "" {
		t.Errorf("got %+v, %v", a, err)
	}
	if err := w.Terminate(""); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := w.Session(); errors.Is(err, phpworker.ErrGone) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the worker did not end")
		}
	}
	mustBeConfined(t)
}

// mustBeConfined fails the test unless the helper has two capabilities and no files.
func mustBeConfined(t *testing.T) {
	t.Helper()
	pid := mainPID(t, helperService)
	status := read(t, fmt.Sprintf("/proc/%d/status", pid))
	const killAndPtrace = "0000000000080020"
	for field, want := range map[string]string{
		"NoNewPrivs": "1", "Seccomp": "2", "CapEff": killAndPtrace, "CapPrm": killAndPtrace, "CapBnd": killAndPtrace,
	} {
		if got := regexp.MustCompile(field + `:\s*(\S+)`).FindStringSubmatch(status); len(got) < 2 || got[1] != want {
			t.Errorf("%s: got %q, want %s", field, got, want)
		}
	}
	if uid := regexp.MustCompile(`Uid:\s*(\S+)`).FindStringSubmatch(status); len(uid) < 2 || uid[1] == "0" {
		t.Errorf("it runs as user %q, want one of its own", uid)
	}
	for _, name := range []string{"etc/passwd", "usr/bin/sh", "run/php", "var/lib"} {
		if got := output("stat", fmt.Sprintf("/proc/%d/root/%s", pid, name)); !strings.Contains(got, "No such file") {
			t.Errorf("it sees /%s: %s", name, got)
		}
	}
	if exposure := exposureOf(mustDo(t, "systemd-analyze", "security", "--no-pager", helperService)); exposure < 0 || exposure > maxHelperExposure {
		t.Errorf("systemd-analyze security: got %.1f, want at most %.1f", exposure, maxHelperExposure)
	}
}

// acceptedByPHP is a connection that a worker of PHP-FPM has accepted, and reads.
func acceptedByPHP(t *testing.T) syscall.RawConn {
	t.Helper()
	sockets, err := filepath.Glob("/run/php/php[0-9]*-fpm.sock")
	if err != nil || len(sockets) == 0 {
		t.Fatalf("there is no socket of PHP-FPM: %v", err)
	}
	nc, err := net.Dial("unix", sockets[len(sockets)-1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if _, err := nc.Write(fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)); err != nil {
		t.Fatal(err)
	}
	raw, err := nc.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	local := &phpworker.Local{}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		w, err := local.Find(raw)
		if err == nil {
			w.Close()
			return raw
		}
		if !errors.Is(err, phpworker.ErrWaiting) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// testStuckScript has a script hang with its session, and frees the session as an operator would.
func testStuckScript(t *testing.T) {
	write(t, "/var/www/html/hang.php", `<?php session_start(); sleep(300);`)
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		_, _ = ask("/hang.php", "stuck") // PHP's error page
	}()
	var key string
	eventually(t, "a script holds its session", func() bool {
		found := regexp.MustCompile(`"key": ?"([0-9a-f]{32})"`).FindStringSubmatch(output("fpm-gate", "locks", "--json"))
		if found != nil {
			key = found[1]
		}
		return found != nil
	})
	var why string
	eventually(t, "the gate sees what the script does", func() bool {
		why = output("fpm-gate", "why", key)
		return strings.Contains(why, "session  open, handler files") && strings.Contains(why, "nanosleep")
	})
	if !regexp.MustCompile(`(?m)^script +/var/www/html/hang.php$`).MatchString(why) {
		t.Errorf("got\n%s", why)
	}
	mustDo(t, "fpm-gate", "break", key, "--terminate")
	if got, want := get(t, "/count.php", "stuck"), "1"; got != want { // waits for PHP's own lock, too
		t.Errorf("got %q, want %q", got, want)
	}
	<-stuck
}

// testNoHelper turns the helper off as the documentation says, and on again.
func testNoHelper(t *testing.T) {
	mustDo(t, "systemctl", "disable", "--now", helperSocket, helperService)
	conn := acceptedByPHP(t)
	eventually(t, "no helper listens", func() bool { // systemd may close its socket a moment later
		_, err := (&phpworker.Helper{}).Find(conn)
		if !errors.Is(err, phpworker.ErrHelper) {
			t.Fatalf("got %v", err)
		}
		return strings.Contains(err.Error(), "systemctl enable --now "+helperSocket)
	})
	mustDo(t, "systemctl", "enable", "--now", helperSocket)
	w, err := (&phpworker.Helper{Timeout: time.Minute}).Find(acceptedByPHP(t))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}
