package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

func TestInstallDepsKnowsAllThatTheRigFinds(t *testing.T) {
	script, err := os.ReadFile("../../scripts/install-deps")
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range programs {
		if !regexp.MustCompile(`(?m)^    need ` + regexp.QuoteMeta(p.pkg) + ` `).Match(script) {
			t.Errorf("scripts/install-deps does not install %s, which has %s in it", p.pkg, name)
		}
	}
}

// TestAWrittenProgramRunsAtOnce while others are written and started.
func TestAWrittenProgramRunsAtOnce(t *testing.T) {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 25 {
				path := filepath.Join(dir, fmt.Sprintf("%d-%d", i, n))
				if err := errors.Join(WriteProgram(path, program), exec.Command(path).Run()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
