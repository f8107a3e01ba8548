package systemd

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What an operator has at hand in the machine.

// commandsWith are those commands of docs/SERVICE.md that a pattern matches, without sudo.
func commandsWith(t *testing.T, pattern string) (commands []string) {
	t.Helper()
	wanted := regexp.MustCompile(pattern)
	for line := range strings.Lines(read(t, "/lab/SERVICE.md")) {
		command, ok := strings.CutPrefix(strings.ReplaceAll(line, "sudo ", ""), "    ")
		if ok && wanted.MatchString(command) {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	if len(commands) < 2 {
		t.Fatalf("docs/SERVICE.md has the commands %q with %s, want more", commands, pattern)
	}
	return commands
}

// checkGaveUp fails the test unless a unit ended with exit code 2 and is not going to be started again.
func checkGaveUp(t *testing.T, unit string) {
	t.Helper()
	// Where systemd means to try again, the SubState is auto-restart until it does.
	got := show(t, unit, "ActiveState") + " " + show(t, unit, "SubState") + " " + show(t, unit, "ExecMainStatus") + " " + show(t, unit, "NRestarts")
	if want := "failed failed 2 0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// awaitRestarts waits until systemd has tried so many times more to start a unit.
func awaitRestarts(t *testing.T, unit string, more int) {
	t.Helper()
	restarts := func() int {
		n, _ := strconv.Atoi(show(t, unit, "NRestarts"))
		return n
	}
	before := restarts()
	eventually(t, fmt.Sprintf("%s is tried %d times more", unit, more), func() bool { return restarts() >= before+more })
}

// awaitOther waits until systemd has replaced a process.
func awaitOther(t *testing.T, unit string, pid int) {
	t.Helper()
	eventually(t, "another process serves", func() bool {
		now, _ := strconv.Atoi(show(t, unit, "MainPID"))
		return now != 0 && now != pid && state(t, unit) == "active"
	})
}

func mainPID(t *testing.T, unit string) int {
	t.Helper()
	pid, err := strconv.Atoi(show(t, unit, "MainPID"))
	if err != nil || pid == 0 {
		t.Fatalf("got the main process %d (%v), want one", pid, err)
	}
	return pid
}

func state(t *testing.T, unit string) string {
	t.Helper()
	return show(t, unit, "ActiveState")
}

// show returns a property of a unit.
func show(t *testing.T, unit, property string) string {
	t.Helper()
	return strings.TrimSpace(mustDo(t, "systemctl", "show", "--value", "--property="+property, unit))
}

// awaitJournal waits until the journal of a unit has a text in it, as journalctl shows it with these arguments. What has
// been written a moment ago may not be there yet.
func awaitJournal(t *testing.T, unit, text string, args ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the journal of %s has %q, with %q", unit, text, args), func() bool {
		return strings.Contains(output("journalctl", append(args, "--no-pager", "-u", unit)...), text)
	})
}

// mustDo runs a command, which must succeed, and returns what it wrote.
func mustDo(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// output runs a command, whose exit code is of no interest, and returns what it wrote.
func output(name string, args ...string) string {
	out, _ := exec.Command(name, args...).CombinedOutput()
	return string(out)
}

// get asks nginx for a page, as a visitor with that session or without one.
func get(t *testing.T, path, session string) string {
	t.Helper()
	body, err := ask(path, session)
	if err != nil {
		t.Error(err)
	}
	return body
}

func ask(path, session string) (body string, err error) { return send("GET", path, session) }

// send makes a connection of its own: one that is closed would be tried again in silence.
func send(method, path, session string) (body string, err error) {
	r, err := http.NewRequest(method, "http://127.0.0.1"+path, nil)
	if err != nil {
		return "", err
	}
	if session != "" {
		r.AddCookie(&http.Cookie{Name: "PHPSESSID", Value: session})
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", path, resp.StatusCode)
	}
	return string(text), err
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("it never came to pass that %s", what)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
