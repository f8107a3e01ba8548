package scripts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// wayToMirrors is what fresh has to find in the settings of a repository's apt.
const wayToMirrors = `Acquire::http::Proxy "http://proxy.test:3128";
Acquire::https::CaInfo "/etc/ssl/mirror.pem";
`

// unavailable is the exit status of a fresh that tested nothing.
const unavailable = 75

// newRepository returns a machine with the scripts of this repository in it and an apt that has Debian's mirrors and
// another's. Its mmdebstrap notes its arguments and fails.
func newRepository(t *testing.T) machine {
	t.Helper()
	m := newMachine(t, packagesFor("fresh")...)
	for _, name := range []string{"fresh", "install-deps"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		m.write("repository/scripts/"+name, string(text))
	}
	m.put("usr/bin/unshare", "")
	m.put("usr/bin/apt-get", `
		[ "$1" = indextargets ] || exec touch "$INSTALL_DEPS_ROOT/updated"
		[ -e "$INSTALL_DEPS_ROOT/updated" ] || [ ! -e "$INSTALL_DEPS_ROOT/needs-update" ] || exit 0
		echo "Packages Debian bookworm main http://mirror.test/debian/"
		echo "Packages Debian bookworm contrib http://mirror.test/debian/"
		echo "DEP-11 Debian bookworm main http://mirror.test/debian/"
		echo "Packages Debian bookworm-security main http://mirror.test/security/"
		echo "Packages Docker bookworm stable http://elsewhere.test/"`)
	m.put("usr/bin/apt-config", `cat <<-'END'
		APT::Architecture "amd64";
		Acquire::http::Proxy "http://proxy.test:3128";
		Acquire::https::CaInfo "/etc/ssl/mirror.pem";
		Acquire::Languages "none";
	END`)
	m.put("usr/bin/mmdebstrap", `
		printf '%s\n' "$@" >"$INSTALL_DEPS_ROOT/arguments"
		exit 1`)
	return m
}

// fresh runs the script, and returns its exit status and what it wrote.
func (m machine) fresh(args ...string) (int, string) {
	m.t.Helper()
	return m.start("scripts/fresh", args...)
}

// start runs a program of the repository.
func (m machine) start(program string, args ...string) (int, string) {
	m.t.Helper()
	cmd := m.command("")
	cmd.Path = filepath.Join(m.root, "repository", program)
	cmd.Args = append([]string{cmd.Path}, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, string(out)
	case errors.As(err, &exit):
		return exit.ExitCode(), string(out)
	}
	m.t.Fatal(err)
	return 0, ""
}

func TestFreshNeedsASuite(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"sid"}, {"--help"}} {
		if status, out := newRepository(t).fresh(args...); status != 2 || !strings.Contains(out, "usage: ") {
			t.Errorf("%q: got exit status %d and %q, want 2 and the usage", args, status, out)
		}
	}
}

func TestFreshTestsNothingWithoutRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("this is root")
	}
	if status, out := newRepository(t).fresh("trixie"); status != unavailable || !strings.Contains(out, "root") {
		t.Errorf("got exit status %d and %q, want %d and that it takes root", status, out, unavailable)
	}
}

func TestFreshUsesTheMirrorsOfTheMachine(t *testing.T) {
	t.Parallel()
	rigtest.NeedRoot(t, "the script takes root")
	for suite, wanted := range map[string][]string{
		"bullseye": {"debian/ bullseye contrib", "debian/ bullseye main"}, // mirrors have no other suites of it
		"bookworm": {"debian/ bookworm contrib", "debian/ bookworm main", "security/ bookworm-security main"},
		"trixie":   {"debian/ trixie contrib", "debian/ trixie main", "security/ trixie-security main"},
	} {
		for _, lists := range []string{"here", "removed"} {
			t.Run(suite+", lists of apt "+lists, func(t *testing.T) {
				t.Parallel()
				m := newRepository(t)
				if lists == "removed" {
					m.write("needs-update", "")
				}
				status, out := m.fresh(suite)
				if want := "nothing was tested"; status != unavailable || !strings.Contains(out, want) {
					t.Errorf("got exit status %d and %q, want %d and %q", status, out, unavailable, want)
				}
				base := filepath.Join(m.root, "repository/build/fresh", suite+".tar")
				want := fmt.Sprintf("%s\n%s.new\n", suite, base)
				for _, mirror := range wanted {
					want += "deb http://mirror.test/" + mirror + "\n"
				}
				if got := m.read("arguments"); !strings.HasSuffix(got, want) {
					t.Errorf("got mmdebstrap's arguments\n%s\nwant at the end\n%s", got, want)
				}
				if got := m.read("repository/build/fresh/apt.conf"); got != wayToMirrors {
					t.Errorf("got apt's settings\n%s\nwant\n%s", got, wayToMirrors)
				}
			})
		}
	}
}

func TestCIRunsTheTestsHereWhereNoDebianCanBeBuilt(t *testing.T) {
	t.Parallel()
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		fresh  string // what becomes of scripts/fresh
		script string
		status int
		make   []string // calls of make on the machine itself
	}{
		{"no Debian", "exit 75", 0, []string{"test CI=true"}},
		{"passed", "exit 0", 0, nil},
		{"failed", "exit 1", 1, nil},
		{"was ended", "kill $$", 143, nil},
	} {
		t.Run(tt.fresh, func(t *testing.T) {
			t.Parallel()
			m := newRepository(t)
			m.write("repository/.ci/run", string(ci))
			m.put("repository/scripts/fresh", tt.script)
			m.put("usr/bin/make", `echo "make $* CI=$CI" >>"$INSTALL_DEPS_ROOT/calls"`)
			if status, out := m.start(".ci/run"); status != tt.status {
				t.Errorf("got exit status %d, want %d\n%s", status, tt.status, out)
			}
			if got := m.calls("make"); !slices.Equal(got, tt.make) {
				t.Errorf("got make called with %q, want %q", got, tt.make)
			}
		})
	}
}

func (m machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}
