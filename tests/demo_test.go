package tests

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/demo"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// The demo's figures are measured ones, and this machine may be busy: only what
// the gate is there for is held to them.
func TestDemoTellsItsStory(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--json")
	if err := d.cmd.Wait(); err != nil {
		t.Fatalf("the demo ended with %v and said:\n%s", err, d.stderr)
	}
	d.leavesNothing(t)
	var f demo.Figures
	if err := json.Unmarshal([]byte(d.stdout.String()), &f); err != nil {
		t.Fatalf("read the figures: %v:\n%s", err, d.stdout)
	}
	if f.TwoScripts == nil || len(f.Bursts) == 0 || f.Hang == nil || f.Reloads == nil || f.Fleet == nil || f.Export == nil {
		t.Fatalf("parts are missing:\n%s", d.stdout)
	}
	for _, b := range f.Bursts {
		if b.Skipped == "" {
			checkBurst(t, b)
		}
	}
	if with, without := f.TwoScripts.With.Workers.Most, f.TwoScripts.Without.Workers.Most; with > without {
		t.Errorf("two scripts hold %d workers with the gate and %d without it, want no more with it", with, without)
	}
	checkFleet(t, *f.Fleet)
	if e := f.Export; e.With.Polls <= e.Blind.Polls {
		t.Errorf("a progress bar moved %d times with a gate that watches and %d times with one that does not, want more with it", e.With.Polls, e.Blind.Polls)
	}
	if os.Geteuid() == 0 { // the gate may look at workers, and end their scripts
		if polls := f.Export.Unlocked.With.Polls; polls <= f.Export.Blind.Polls {
			t.Errorf("sessions that nothing locks: the progress bar moved %d times, want more than without a watch", polls)
		}
		if freed := f.Hang.Files.With.Freed; !freed.Done {
			t.Errorf("a script that hangs was not ended: %+v", freed)
		}
	}
	fewer(t, "workers that a script which hangs holds, and its visitor", f.Hang.Files.With.Workers.Median, f.Hang.Files.Without.Workers.Median)
	fewer(t, "scripts run for a visitor who reloads", f.Reloads.With.Scripts, f.Reloads.Without.Scripts)
	fewer(t, "time to the last reload", f.Reloads.With.Last, f.Reloads.Without.Last)
	if with, without := f.Hang.Files.With, f.Hang.Files.Without; with.OthersAnswered <= without.OthersAnswered {
		t.Errorf("a script hangs: %d other visitors got a page with the gate and %d without it, want more with it", with.OthersAnswered, without.OthersAnswered)
	}
	if u := f.Hang.Unlocked.With; !u.Stays.Done || !u.Leaves.Done {
		t.Errorf("a script hangs behind the gate: got %+v, want its session to be freed by expiry and by abandon_after", u)
	}
}

func checkFleet(t *testing.T, f demo.Fleet) {
	t.Helper()
	if f.Skipped != "" {
		return
	}
	if f.With.Lost != 0 || f.With.Answers["200"] != f.Requests {
		t.Errorf("two hosts that share their locks: %d updates were lost and the answers were %v of %d, want all to be well", f.With.Lost, f.With.Answers, f.Requests)
	}
	fewer(t, "updates that two hosts lose", f.With.Lost, f.Without.Lost)
}

func checkBurst(t *testing.T, b demo.Burst) {
	t.Helper()
	if b.With.Lost != 0 || b.With.Failed != 0 || b.With.Answers["200"] != b.With.Requests {
		t.Errorf("%s: with the gate %d updates were lost, %d other pages failed and the answers were %v of %d, want all to be well",
			b.Handler, b.With.Lost, b.With.Failed, b.With.Answers, b.With.Requests)
	}
	if b.Handler == "files" { // three seconds without the gate: no noise comes near them, as it may with the others
		fewer(t, "other visitors' p99 in the burst", b.With.During.P99, b.Without.During.P99)
	}
}

// fewer holds the gate to be better.
func fewer[T cmp.Ordered](t *testing.T, what string, with, without T) {
	t.Helper()
	if with >= without {
		t.Errorf("%s: got %v with the gate and %v without it, want less with it", what, with, without)
	}
}

func TestDemoEndsWhatItStartedWhenInterrupted(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--only", "3")
	eventually(t, "the demo's script hangs", func() bool { return strings.Contains(d.stderr.String(), "1/1 a script hangs") })
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	if got := d.cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("got exit code %d, want 1; it said:\n%s", got, d.stderr)
	}
	if d.stdout.String() != "" {
		t.Errorf("it shows figures that it has not measured:\n%s", d.stdout)
	}
	d.leavesNothing(t)
}

// demoRun is a demo with a folder of its own for temporary files.
type demoRun struct {
	cmd            *exec.Cmd
	dir            string
	stdout, stderr *output
}

func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	rigtest.Need(t, "nginx", "php-fpm")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "demo-") // short: Unix sockets will be in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &demoRun{dir: dir, stdout: new(output), stderr: new(output)}
	d.cmd = exec.CommandContext(ctx, gateBinary, append([]string{"demo"}, args...)...)
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 10 * time.Second
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.dir)
	d.cmd.Stdout, d.cmd.Stderr = d.stdout, d.stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

// leavesNothing looks for files and processes of a demo that has ended.
func (d *demoRun) leavesNothing(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		t.Errorf("the demo has left %s", f.Name())
	}
	folders, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range folders {
		if folder, err := os.Readlink(link); err == nil && strings.HasPrefix(folder, d.dir) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
			t.Errorf("the demo has left %s, a process %s in %s", filepath.Dir(link), bytes.TrimSpace(name), folder)
		}
	}
}

// output is what a program writes while a test reads it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
