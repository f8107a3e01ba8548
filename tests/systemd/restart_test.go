package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// slowScript tells by files that it has begun and ended, and ends when it may. It counts in a file without a lock, as
// session handlers do that do not lock: only the gate keeps two of a session apart.
const slowScript = `<?php
$dir = '/var/www/slow';
file_put_contents("$dir/begun", "x", FILE_APPEND);
$n = (int) @file_get_contents("$dir/count");
while (!file_exists("$dir/go")) {
    usleep(5000);
    clearstatcache();
}
file_put_contents("$dir/count", $n + 1);
echo $n + 1;
`

// testRestartBesideAScript restarts and upgrades the gate while a script runs. Other visitors do not wait for it; the
// next request of its session does.
func testRestartBesideAScript(t *testing.T) {
	const dir = "/var/www/slow"
	write(t, "/var/www/html/slow.php", slowScript)
	for _, step := range [][]string{
		{"systemctl", "restart", service},
		installCommand(t),
		{"systemctl", "kill", "--kill-who=main", "--signal=KILL", service},
	} {
		_ = os.RemoveAll(dir)
		mustDo(t, "install", "-d", "-o", "www-data", dir)
		var answers []<-chan string
		visit := func() {
			answer := make(chan string, 1)
			answers = append(answers, answer)
			go func() {
				body, err := ask("/slow.php", "slow")
				if err != nil {
					body = err.Error()
				}
				answer <- body
			}()
		}
		visit()
		eventually(t, "the script has begun", func() bool { return exists(dir + "/begun") })
		pid := mainPID(t, service)
		begun := time.Now()
		restarted := make(chan string, 1)
		go func() { restarted <- output(step[0], step[1:]...) }()
		eventually(t, "the gate begins to restart", func() bool {
			return state(t, service) != "active" || show(t, service, "MainPID") != strconv.Itoa(pid)
		})
		asked := time.Now()
		if got, want := get(t, "/lock.php", "other"), "held"; got != want {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
		t.Logf("%s: another page came after %v, %v after the command", step, since(asked), since(begun))
		visit()
		<-restarted
		awaitOther(t, service, pid)
		if got := read(t, dir+"/begun"); got != "x" {
			t.Errorf("%s: %d scripts of a session run at once", step, len(got))
		}
		write(t, dir+"/go", "")
		for i, answer := range answers {
			if got, want := <-answer, strconv.Itoa(i+1); got != want {
				t.Errorf("%s: script %d says %q, want %q", step, i+1, got, want)
			}
		}
		eventually(t, "the process of before has ended", func() bool { return len(processes(t, service)) == 2 })
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }

// processes returns the processes of a unit, by their cgroups.
func processes(t *testing.T, unit string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, file := range files {
		text, _ := os.ReadFile(file) // of a process that has ended, it may be
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && strings.Contains(string(text), "/"+unit) {
			all = append(all, pid)
		}
	}
	return all
}

// servingPID returns the process of a unit that serves: the one that is not its main process.
func servingPID(t *testing.T, unit string) int {
	t.Helper()
	main := mainPID(t, unit)
	for _, pid := range processes(t, unit) {
		if pid != main {
			return pid
		}
	}
	t.Fatalf("%s has no process but its main process", unit)
	return 0
}

// testCrashOfTheServingProcess kills the process that serves: the unit ends with it, and is started again.
func testCrashOfTheServingProcess(t *testing.T) {
	pid := mainPID(t, service)
	if out, err := exec.Command("kill", "-KILL", strconv.Itoa(servingPID(t, service))).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	awaitOther(t, service, pid)
	if got, want := get(t, "/lock.php", "one"), "held"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
