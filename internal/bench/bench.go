package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// bench is one run of the program.
type bench struct {
	ctx     context.Context
	options options
	root    string // folder of the repository
	temp    string // folder of the gate's binary, if it was built
	gate    string // path of the gate's binary
	tty     bool   // stderr is a terminal
}

func newBench(ctx context.Context, o options) (*bench, error) {
	root, err := repository()
	if err != nil {
		return nil, err
	}
	b := &bench{ctx: ctx, options: o, root: root, gate: o.gate, tty: isTerminal(os.Stderr)}
	if b.gate == "" {
		return b, b.build()
	}
	b.gate, err = filepath.Abs(b.gate)
	return b, err
}

// repository returns the root of the repository that the program is run in.
func repository() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	file := strings.TrimSpace(string(mod))
	if err != nil || filepath.Base(file) != "go.mod" {
		return "", fmt.Errorf("find the repository: go env GOMOD says %q, error %v", file, err)
	}
	return filepath.Dir(file), nil
}

// build makes the binary that is measured, as a user gets it.
func (b *bench) build() (err error) {
	b.say("building the gate")
	if b.temp, err = os.MkdirTemp("", "fpm-gate-bench-"); err != nil {
		return err
	}
	b.gate = filepath.Join(b.temp, "fpm-gate")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-o", b.gate, "./cmd/fpm-gate")
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		b.close()
		return fmt.Errorf("build the gate: %w\n%s", err, output)
	}
	return nil
}

func (b *bench) close() {
	b.say("")
	if b.temp != "" {
		_ = os.RemoveAll(b.temp)
	}
}

// measure runs one measure in a rig of its own.
func (b *bench) measure(m measure) (rows []row, err error) {
	if err := rig.Need(m.needs...); err != nil {
		return nil, err
	}
	st := &stage{bench: b, name: m.name}
	if st.Rig, err = rig.New(""); err != nil {
		return nil, err
	}
	defer func() {
		st.stopPerf()
		err = errors.Join(err, st.Rig.Close())
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause // and all the rest came of it
		}
	}()
	if err := st.writeScripts(); err != nil {
		return nil, err
	}
	return m.run(st)
}

// say shows the progress, on a terminal in one line.
func (b *bench) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case b.tty:
		fmt.Fprint(os.Stderr, "\r\033[K", text)
	case text != "":
		fmt.Fprintln(os.Stderr, text)
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
