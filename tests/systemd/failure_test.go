package systemd

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testCrash(t *testing.T) {
	pid := mainPID(t, service)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitOther(t, service, pid)
	if got, want := get(t, "/lock.php", "one"), "held"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// hang starts an instance and freezes it. What becomes of it, testWatchdog sees later: WatchdogSec= has to be long where
// a busy machine may keep a sound process waiting.
func hang(t *testing.T) {
	write(t, "/etc/fpm-gate/hang.hcl", strings.Replace(smallConfig, "systemd:www", "unix:/run/fpm-gate/hang.sock", 1))
	write(t, "/etc/systemd/system/"+hanging+".d/test.conf", "[Service]\nWatchdogSec=8s\n")
	mustDo(t, "systemctl", "daemon-reload")
	mustDo(t, "systemctl", "start", hanging)
	hangingPID = mainPID(t, hanging)
	if err := syscall.Kill(servingPID(t, hanging), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

const hanging = "fpm-gate@hang.service"

var hangingPID int

func testWatchdog(t *testing.T) {
	awaitOther(t, hanging, hangingPID)
	for _, want := range []string{"Watchdog timeout", "goroutine "} { // the second is in the stacks that it leaves
		awaitJournal(t, hanging, want)
	}
	mustDo(t, "rm", "-r", "/etc/systemd/system/"+hanging+".d")
	mustDo(t, "systemctl", "daemon-reload")
	mustDo(t, "systemctl", "restart", hanging)
}

func testWrongStart(t *testing.T) {
	shipped := read(t, configPath)
	write(t, configPath, "gate \"www\" {\n listen = \"nowhere\"\n}\n")
	if err := exec.Command("systemctl", "restart", service).Run(); err == nil {
		t.Error("restart: got success, want that it fails")
	}
	checkGaveUp(t, service)
	// A request has systemd try again, and is refused. None waits until the config is mended.
	for range 12 {
		if body, err := ask("/lock.php", "one"); err == nil {
			t.Errorf("a request without a gate: got %q, want an error", body)
		}
	}
	eventually(t, "the last attempt has ended so too", func() bool {
		return state(t, service) == "failed" && show(t, service, "ExecMainStatus") == "2"
	})
	write(t, configPath, shipped)
	mustDo(t, "systemctl", "restart", service)
	if got, want := get(t, "/lock.php", "one"), "held"; got != want {
		t.Errorf("after the config is mended: got %q, want %q", got, want)
	}
}

// testNoSocket asks for a socket that systemd does not pass: its unit may yet be started, so the service tries again.
func testNoSocket(t *testing.T) {
	mustDo(t, "systemctl", "stop", socket, service)
	mustDo(t, "systemctl", "start", service)
	if got := state(t, socket); got != "active" {
		t.Errorf("after a start of the service, its socket: got %s, want active", got)
	}
	shipped := read(t, configPath)
	write(t, configPath, strings.Replace(smallConfig, "systemd:www", "systemd:nowhere", 1))
	if err := exec.Command("systemctl", "restart", service).Run(); err == nil {
		t.Error("start without the socket: got success, want that it fails")
	}
	awaitJournal(t, service, `it has passed \"www\". Sockets come with the start`)
	awaitRestarts(t, service, 3)
	write(t, configPath, shipped)
	eventually(t, "the service runs again", func() bool { return state(t, service) == "active" && state(t, socket) == "active" })
}

// testLastingFailure keeps the service from starting, by what is no wrong config, for longer than the socket's limit
// takes. Meanwhile no visitor may wait for long; afterwards no command may be needed.
func testLastingFailure(t *testing.T) {
	shipped := read(t, configPath)
	for name, wrong := range map[string]string{
		"the admin's folder": strings.Replace(shipped, "/run/fpm-gate/admin.sock", "/run/fpm-gate/no/admin.sock", 1),
		"an unknown group":   shipped + strings.NewReplacer(`"www"`, `"more"`, "systemd:www", "unix:/run/fpm-gate/more.sock", "www-data", "no-such-group").Replace(smallConfig),
		"a file of TLS":      "memcached {\n servers = [\"127.0.0.1:1\"]\n tls { ca = \"/etc/ssl/no.pem\" }\n}\n" + shipped,
	} {
		write(t, configPath, wrong)
		if err := exec.Command("systemctl", "reload", service).Run(); err == nil {
			t.Errorf("%s: reload: got success, want that it fails", name)
		}
		if got, want := get(t, "/lock.php", "one"), "held"; got != want {
			t.Errorf("%s: after a reload that failed: got %q, want %q", name, got, want)
		}
		if err := exec.Command("systemctl", "restart", service).Run(); err == nil {
			t.Errorf("%s: restart: got success, want that it fails", name)
		}
		refused, longest := 0, time.Duration(0)
		for began := time.Now(); refused < 15; refused++ { // one after the other, more than the limit of the socket
			asked := time.Now()
			if body, err := ask("/lock.php", "one"); err == nil {
				t.Errorf("%s: got %q, want an error", name, body)
			}
			longest = max(longest, time.Since(asked))
			if time.Since(began) > 90*time.Second {
				t.Errorf("%s: only %d requests were refused in a minute and a half: they hang", name, refused)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		awaitRestarts(t, service, 10)
		write(t, configPath, shipped)
		mended := time.Now()
		eventually(t, name+": requests are served again, without a command", func() bool {
			body, err := ask("/lock.php", "one")
			return err == nil && body == "held"
		})
		t.Logf("%s: a request was refused after %v at most, and the site was back %v after it was mended", name, longest, time.Since(mended))
	}
}
