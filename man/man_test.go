package man

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// The sample says what the defaults are, and a test of config holds it to the code. The page repeats it.
func TestEveryKeyIsThereWithItsDefault(t *testing.T) {
	t.Parallel()
	want := regexp.MustCompile(`(?m)^ *(?:# )?([a-z_]+ = \S.*)$`).FindAllStringSubmatch(read(t, "../config/fpm-gate.hcl"), -1)
	got := regexp.MustCompile(`(?m)^\.B ([a-z_]+ = .*)$`).FindAllStringSubmatch(plain(read(t, "fpm-gate.hcl.5")), -1)
	if len(want) < 50 {
		t.Fatalf("found %d keys in the sample, which cannot be all", len(want))
	}
	for n := range max(len(got), len(want)) {
		var g, w string
		if n < len(got) {
			g = got[n][1]
		}
		if n < len(want) {
			w = want[n][1]
		}
		if g != w {
			t.Fatalf("fpm-gate.hcl.5: got %q as its %dth key, want %q as in config/fpm-gate.hcl", g, n+1, w)
		}
	}
}

// Each command is in the synopsis and in the list of commands, each flag in the list of options; none is there that
// the program does not have.
func TestEveryCommandAndFlagIsThere(t *testing.T) {
	t.Parallel()
	page, program := plain(read(t, "fpm-gate.8")), build(t)
	var commands, flags []string
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`).FindAllStringSubmatch(help(t, program), -1) {
		if m[1] == "help" {
			continue
		}
		commands = append(commands, m[1])
		for _, f := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`).FindAllStringSubmatch(help(t, program, m[1]), -1) {
			flags = append(flags, f[1])
		}
	}
	if len(commands) < 4 {
		t.Fatalf("found the commands %v, which cannot be all", commands)
	}
	compare(t, "synopsis", regexp.MustCompile(`(?m)^\.SY fpm-gate\\ ([a-z]+)`).FindAllStringSubmatch(page, -1), commands)
	compare(t, "commands", regexp.MustCompile(`(?m)^\.TP\n\.B ([a-z]+)$`).FindAllStringSubmatch(page, -1), commands)
	compare(t, "options", regexp.MustCompile(`(?m)^\.TP\n\.BR? (?:-\w ", " )?(--[a-z-]+)`).FindAllStringSubmatch(page, -1), flags)
}

func compare(t *testing.T, what string, found [][]string, want []string) {
	t.Helper()
	var got []string
	for _, m := range found {
		got = append(got, m[1])
	}
	slices.Sort(got)
	slices.Sort(want)
	if got, want := slices.Compact(got), slices.Compact(slices.Clone(want)); !slices.Equal(got, want) {
		t.Errorf("%s of fpm-gate.8: got %v, want %v", what, got, want)
	}
}

func TestPagesAreFreeOfWarnings(t *testing.T) {
	t.Parallel()
	rigtest.Need(t, "groff")
	for _, page := range []string{"fpm-gate.8", "fpm-gate.hcl.5"} {
		out, err := exec.Command("groff", "-man", "-ww", "-Tutf8", "-z", page).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// plain undoes the escapes of a page.
func plain(page string) string {
	return strings.NewReplacer(`\(dq`, `"`, `\-`, `-`).Replace(page)
}

// help returns what the program says of itself, or of a command.
func help(t *testing.T, program string, command ...string) string {
	t.Helper()
	text, err := exec.Command(program, append([]string{"help"}, command...)...).Output()
	if err != nil {
		t.Fatalf("fpm-gate help %s: %v", command, err)
	}
	return string(text)
}

func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "fpm-gate")
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, "../cmd/fpm-gate")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
