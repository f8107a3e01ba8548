// Package rigtest ties a [rig.Rig] to a test: the rig is in the test's folder and
// ends with the test. If the test fails, its output has the servers' logs.
// Without a program that the test needs, it is skipped, or fails if CI=true.
package rigtest

import (
	"os"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// New returns a rig for the test. If one of the named programs is missing, the test fails where CI=true, and is skipped
// elsewhere.
func New(t testing.TB, programs ...string) *rig.Rig {
	t.Helper()
	Need(t, programs...)
	r, err := rig.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close the rig: %v", err)
		}
		if t.Failed() {
			showLogs(t, r)
		}
	})
	return r
}

// Need ends the test as [New] does if a program is missing.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	if err := rig.Need(programs...); err != nil {
		Lack(t, err)
	}
}

// NeedRoot ends the test as [New] does unless it is root's. why says what takes root.
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lack(t, why)
	}
}

// Lack ends a test that lacks something: it fails where CI=true, and is skipped elsewhere.
func Lack(t testing.TB, what ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what...)
	}
	t.Skip(what...)
}

// Start starts a server, and ends the test if it does not start:
//
//	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 10})
func Start[Options, Server any](t testing.TB, start func(Options) (Server, error), o Options) Server {
	t.Helper()
	s, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func showLogs(t testing.TB, r *rig.Rig) {
	const most = 4 << 10
	for _, s := range r.Servers() {
		log := strings.TrimSpace(s.Log())
		if cut := len(log) - most; cut > 0 {
			log = "…" + log[cut:]
		}
		t.Logf("log of %s:\n%s", s.Name, log)
	}
}
