package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measure is a part of the benchmark with servers of its own.
type measure struct {
	name  string
	needs []string // programs, as the rig calls them
	run   func(*stage) ([]row, error)
}

// measures are all there are, in the order of the document.
var measures = []measure{
	{"cpu", []string{"nginx", "nginx-stream", "php-fpm"}, measureCPU},
	{"throughput", []string{"nginx", "php-fpm"}, measureThroughput},
}

func names(measures []measure) []string {
	var all []string
	for _, m := range measures {
		all = append(all, m.name)
	}
	return all
}

// bench is one run of the program.
type bench struct {
	ctx     context.Context
	options options
	tty     bool   // stderr is a terminal
	temp    string // folder of the gate's binary
	gate    string // path of the gate's binary
}

func newBench(ctx context.Context, o options, root string) (*bench, error) {
	b := &bench{ctx: ctx, options: o, gate: o.gate}
	if info, err := os.Stderr.Stat(); err == nil {
		b.tty = info.Mode()&os.ModeCharDevice != 0
	}
	if b.gate != "" {
		var err error
		b.gate, err = filepath.Abs(b.gate)
		return b, err
	}
	return b, b.build(root)
}

// build makes the binary that is measured as a user would get it.
func (b *bench) build(root string) (err error) {
	b.say("building the gate")
	if b.temp, err = os.MkdirTemp("", "fpm-gate-bench-"); err != nil {
		return err
	}
	b.gate = filepath.Join(b.temp, "fpm-gate")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-o", b.gate, "./cmd/fpm-gate")
	cmd.Dir = root
	if output, err := cmd.CombinedOutput(); err != nil {
		b.close()
		return fmt.Errorf("build the gate: %w\n%s", err, output)
	}
	return nil
}

func (b *bench) close() {
	if b.temp != "" {
		_ = os.RemoveAll(b.temp)
	}
	b.say("")
}

// measure runs m in a rig of its own.
func (b *bench) measure(m measure) (rows []row, err error) {
	if err := rig.Need(m.needs...); err != nil {
		return nil, err
	}
	st := &stage{bench: b, name: m.name}
	if st.Rig, err = rig.New(""); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(b.ctx, func() { st.Rig.Close() }) // ends what a slice waits for
	defer func() {
		stop()
		st.stopPerf()
		if closeErr := st.Rig.Close(); err == nil {
			err = closeErr
		}
		if b.ctx.Err() != nil {
			err = context.Cause(b.ctx)
		}
	}()
	return m.run(st)
}

// say shows what is going on, on a terminal in one line.
func (b *bench) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case b.tty:
		fmt.Fprint(os.Stderr, "\r\033[K", text)
	case text != "":
		fmt.Fprintln(os.Stderr, text)
	}
}

// stage is where one measure is taken.
type stage struct {
	*rig.Rig
	*bench
	name string
	perf []*exec.Cmd
}

// rounds returns how many rounds to measure: n, or one in a smoke run.
func (st *stage) rounds(n int) int {
	if st.options.quick {
		return 1
	}
	return n
}

// scale returns n, or the n of a smoke run.
func scale[T int | time.Duration](st *stage, n, quick T) T {
	if st.options.quick {
		return quick
	}
	return n
}

// progress returns a function for interleave that shows how far a measure has come.
func (st *stage) progress(what string, rounds int) func(int, string) {
	return func(round int, side string) {
		if !st.tty && (side != "" && round != 0) {
			return
		}
		st.say("%s: %s, round %d of %d: %s", st.name, what, round, rounds, side)
	}
}

// gateSettings are what a gate is told beside its addresses.
type gateSettings struct {
	upstream string // more of its upstream block
	gate     string // more of its gate block
}

// startGate starts a gate before php.
func (st *stage) startGate(php *rig.PHPFPM, settings gateSettings) (*rig.Gate, error) {
	listen, err := st.Reserve("unix", "gate")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`gate "www" {
  listen = %q
  upstream {
    address = %q
    %s
  }
  %s
}
`, listen, php.Addr, settings.upstream, settings.gate)
	gate, err := st.Gate(rig.GateOptions{Binary: st.gate, Config: config})
	if err != nil {
		return nil, err
	}
	return gate, st.startPerf(gate)
}

// startPerf records the gate's stacks, if the command line asks for it.
func (st *stage) startPerf(gate *rig.Gate) error {
	if st.options.perf == "" {
		return nil
	}
	file := fmt.Sprintf("%s.%s-%d", st.options.perf, st.name, len(st.perf)+1)
	cmd := exec.Command("perf", "record", "-q", "-g", "-F", "499", "-o", file, "-p", fmt.Sprint(gate.Pid()))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("record the gate: %w", err)
	}
	st.perf = append(st.perf, cmd)
	return nil
}

// stopPerf lets perf write its files.
func (st *stage) stopPerf() {
	for _, cmd := range st.perf {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // perf ends itself by the signal that it was sent
	}
}

// repository returns the root of the repository that the program is run in.
func repository() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	file := strings.TrimSpace(string(mod))
	if err != nil || filepath.Base(file) != "go.mod" {
		return "", fmt.Errorf("the benchmark runs in the repository only (go env GOMOD: %q, error %v)", file, err)
	}
	return filepath.Dir(file), nil
}

// inRoot returns where a file is whose name is relative to the repository.
func inRoot(root, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(root, file)
}
