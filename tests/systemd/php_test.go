package systemd

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gracefulStop are the lines of docs/OPERATING.md that let PHP-FPM's scripts end.
const gracefulStop = `[Service]
KillMode=mixed
KillSignal=SIGQUIT
TimeoutStopSec=40s
`

// phpUnit returns the unit of PHP-FPM, and the folder of its configuration.
func phpUnit(t *testing.T) (unit, config string) {
	t.Helper()
	units, err := filepath.Glob("/usr/lib/systemd/system/php*-fpm.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("there is no unit of PHP-FPM: %v", err)
	}
	unit = filepath.Base(units[len(units)-1])
	version := strings.TrimSuffix(strings.TrimPrefix(unit, "php"), "-fpm.service")
	return unit, "/etc/php/" + version + "/fpm/"
}

// testPHPRestarts restarts and reloads PHP-FPM while visitors count pages in their sessions. A page that is lost or
// counted twice shows in the next one.
func testPHPRestarts(t *testing.T) {
	unit, config := phpUnit(t)
	write(t, "/etc/systemd/system/"+unit+".d/stop.conf", gracefulStop)
	write(t, config+"php-fpm.conf", strings.Replace(read(t, config+"php-fpm.conf"),
		";process_control_timeout = 0", "process_control_timeout = 30s", 1))
	mustDo(t, "systemctl", "daemon-reload")
	mustDo(t, "systemctl", "reset-failed", unit)
	mustDo(t, "systemctl", "restart", unit)
	restarts(t, unit, func(verb string) { mustDo(t, "systemctl", verb, unit) })
}

// testPHPRestartsInPauses does so with PHP-FPM's unit as Debian has it, which kills scripts, while the gate is paused.
func testPHPRestartsInPauses(t *testing.T) {
	unit, config := phpUnit(t)
	mustDo(t, "rm", "-r", "/etc/systemd/system/"+unit+".d")
	write(t, config+"php-fpm.conf", strings.Replace(read(t, config+"php-fpm.conf"),
		"process_control_timeout = 30s", ";process_control_timeout = 0", 1))
	mustDo(t, "systemctl", "daemon-reload")
	mustDo(t, "systemctl", "reset-failed", unit)
	mustDo(t, "systemctl", "restart", unit)
	restarts(t, unit, func(verb string) {
		mustDo(t, "fpm-gate", "pause", "--wait")
		mustDo(t, "systemctl", verb, unit)
		mustDo(t, "systemctl", "restart", service) // which does not end the pause
		if out := mustDo(t, "fpm-gate", "resume"); !strings.Contains(out, "resumed; ") {
			t.Errorf("after a restart of the gate: got %q, want that it was paused", out)
		}
	})
}

// restarts has PHP-FPM restarted three times, and reloaded, while 200 requests a second come.
func restarts(t *testing.T, unit string, do func(verb string)) {
	t.Helper()
	load := startLoad(10, 20)
	var longest time.Duration
	pids := map[int]bool{mainPID(t, unit): true}
	for _, verb := range []string{"restart", "restart", "restart", "reload"} {
		load.await(t, 100)
		mustDo(t, "systemctl", "reset-failed", unit, service) // or systemd has had enough of so many restarts
		begun := time.Now()
		do(verb)
		longest = max(longest, time.Since(begun))
		pids[mainPID(t, unit)] = true
	}
	load.await(t, 100)
	requests, failures := load.end()
	t.Logf("%d requests; the longest restart took %v, the longest answer %v", requests, longest, load.longest())
	for _, f := range failures {
		t.Error(f)
	}
	if len(pids) != 4 {
		t.Errorf("got %d main processes one after the other, want 4", len(pids))
	}
}
