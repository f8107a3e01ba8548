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
	for _, s := range r.Servers() {
		t.Logf("log of %s:\n%s", s.Name, ends(strings.TrimSpace(s.Log()), 8<<10))
	}
}

// ends returns a log of at most n bytes, or the first and the last lines of a longer one: what went wrong first is
// often long past when the test notices.
func ends(log string, n int) string {
	if len(log) <= n {
		return log
	}
	first, last := log[:n/2], log[len(log)-n/2:]
	if i := strings.LastIndexByte(first, '\n'); i >= 0 {
		first = first[:i+1]
	}
	if i := strings.IndexByte(last, '\n'); i >= 0 {
		last = last[i:]
	}
	return first + "…" + last
}
