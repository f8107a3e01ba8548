// Package tests holds the built program to what it promises, between real web
// servers and real PHP-FPM. main_test.go builds it, harness_test.go starts it
// and asks it; matrix_test.go runs the same cases through every web server; the
// other files each hold one of the gate's features to the test.
package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// gateBinary is the program under test, built with the race detector. plainBinary is as it is packaged, for what the race
// detector has no room for, or cannot do.
var gateBinary, plainBinary string

// gateVersion is the version that the program is built with.
const gateVersion = "v0.0.0-tests"

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fpm-gate-tests-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the program:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	gateBinary, plainBinary = filepath.Join(dir, "fpm-gate"), filepath.Join(dir, "plain", "fpm-gate")
	if err := errors.Join(build(gateBinary, "CGO_ENABLED=1", "-race"), build(plainBinary, "CGO_ENABLED=0", "-trimpath")); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	return m.Run()
}

func build(binary, environment, flag string) error {
	cmd := exec.Command("go", "build", flag, "-ldflags", "-X main.version="+gateVersion, "-o", binary, "../cmd/fpm-gate")
	cmd.Env = append(os.Environ(), environment)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return nil
}
