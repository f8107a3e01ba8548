package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestCheckReportsWhetherWorkersAreSeen, and by which process.
func TestCheckReportsWhetherWorkersAreSeen(t *testing.T) {
	t.Parallel()
	p := newPool(t, "files", rig.PHPOptions{})
	file := filepath.Join(t.TempDir(), "gate.hcl")
	listen := rig.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	config := gateOf("www", listen, "address = \""+p.PHP.Addr.String()+"\"", "")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := run(t, "check", "--config", file, "--probe")
	if code != 0 {
		t.Errorf("got exit code %d: %s", code, stderr)
	}
	for _, want := range []string{
		`seen by the helper: (yes, PHP 8|no: fpm-gate helper )`,
		`seen by a process with these rights: yes, PHP [0-9.]+, process [0-9]+`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("got\n%s\nwant %s in it", out, want)
		}
	}
}
