package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"golang.org/x/sys/unix"
)

// documentFile is what a whole run writes, in the repository.
const documentFile = "docs/BENCHMARKS.md"

// report is what a run has found, and where.
type report struct {
	Began    time.Time
	Machine  string
	Programs string
	Before   string // how much of the machine others used when the run began
	After    string // and when it ended
	tables   map[string]table
}

// newReport notes what there is to know before a run.
func newReport(b *bench) (*report, error) {
	r := &report{Began: time.Now(), tables: map[string]table{}}
	var err error
	if r.Machine, err = machine(); err != nil {
		return nil, err
	}
	r.Programs = strings.Join(append(b.version(), programs()...), ", ")
	if r.Before, err = busy(); err != nil {
		return nil, err
	}
	return r, nil
}

//go:embed document.md
var document string

// write writes the document.
func (r *report) write(file string) (err error) {
	if r.After, err = busy(); err != nil {
		return err
	}
	t, err := template.New("document").Funcs(template.FuncMap{"table": r.table}).Parse(document)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := t.Execute(&b, r); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

func (r *report) table(name string) string {
	if t, ok := r.tables[name]; ok {
		return t.String()
	}
	return "Not measured in this run.\n"
}

// Took is how long the run has taken.
func (r *report) Took() time.Duration { return time.Since(r.Began).Round(time.Second) }

// How the document describes the measurement.
func (r *report) KeptConns() int       { return keptConns }
func (r *report) Storm() int           { return stormSize }
func (r *report) StormMillis() int     { return stormMillis }
func (r *report) VisitMillis() float64 { return millis(visitEvery) }
func (r *report) Handoffs() int        { return handoffs }
func (r *report) LeftMinutes() float64 { return leftTime.Minutes() }
func (r *report) WatchRate() int       { return watchRate }
func (r *report) LargeMB() int         { return largeMB }

// machine describes the machine.
func machine() (string, error) {
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	model := "unknown CPU"
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(cpus); m != nil {
		model = strings.TrimSpace(string(m[1]))
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "", os.NewSyscallError("sysinfo", err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	memory := float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	return fmt.Sprintf("%d × %s, %.0f GiB of memory, Linux %s",
		runtime.NumCPU(), model, memory, unix.ByteSliceToString(name.Release[:])), nil
}

// version returns the version of the measured gate, if it was built.
func (b *bench) version() []string {
	if b.options.gate != "" {
		return nil
	}
	git := exec.Command("git", "describe", "--tags", "--always", "--dirty")
	git.Dir = b.root
	commit, err := git.Output()
	if err != nil {
		return nil
	}
	return []string{"fpm-gate " + strings.TrimSpace(string(commit))}
}

var versionNumber = regexp.MustCompile(`\d+\.\d+(\.\d+)?`)

// programs returns the versions of the measured programs, without those whose version cannot be found.
func programs() []string {
	found := []string{"Go " + strings.TrimPrefix(runtime.Version(), "go")}
	for _, p := range []struct{ name, flag string }{
		{"nginx", "-v"}, {"php-fpm", "-v"}, {"memcached", "-V"}, {"redis-server", "-v"},
	} {
		path, err := rig.Find(p.name)
		if err != nil {
			continue
		}
		output, _ := exec.Command(path, p.flag).CombinedOutput() // an error leaves no version in it
		if v := versionNumber.Find(output); v != nil {
			found = append(found, p.name+" "+string(v))
		}
	}
	return found
}

// busy returns how much of the machine others use, in a second in which the
// benchmark does nothing.
func busy() (string, error) {
	idle, total, err := cpuTicks()
	if err != nil {
		return "", err
	}
	time.Sleep(time.Second)
	idleNow, totalNow, err := cpuTicks()
	if err != nil {
		return "", err
	}
	used := 100 * (1 - (idleNow-idle)/(totalNow-total))
	return fmt.Sprintf("%.0f %%", used), nil
}

// cpuTicks reads how much time all CPUs have had, and been idle.
func cpuTicks() (idle, total float64, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line)[1:] {
		var ticks float64
		if _, err := fmt.Sscan(field, &ticks); err != nil {
			return 0, 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		if i < 8 { // the guests' time is part of the user's
			total += ticks
		}
		if i == 3 || i == 4 { // idle, waiting for disks
			idle += ticks
		}
	}
	return idle, total, nil
}
