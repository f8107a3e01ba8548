// Package systemd holds the package and the units to what docs/SERVICE.md promises, under a real systemd. The test
// builds the .deb and boots this machine's own /usr in systemd-nspawn, with a network of its own; in there the same
// test binary installs the package and does what an operator and bad luck would do. Nothing of the machine is
// changed: /usr and the state of dpkg lie under an overlay that goes with the test.
package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// insideVariable is set in the environment of the test that runs in the machine.
const insideVariable = "FPM_GATE_TEST_INSIDE"

// bootTimeout is only there so that a machine that hangs ends.
const bootTimeout = 8 * time.Minute

// TestUnderSystemd reports each test that ran in the machine as one of its own.
func TestUnderSystemd(t *testing.T) {
	t.Parallel()
	needMachine(t)
	oneMachine(t)
	lab := t.TempDir()
	share(t, lab, builtPackage(t, "deb"), "")
	share(t, lab, "../../docs/SERVICE.md", "")
	share(t, lab, "../../packaging/rpm/postun", "")
	log := boot(t, lab)
	results := insideResult.FindAllStringSubmatch(log, -1)
	for _, r := range results {
		t.Run(r[2], func(t *testing.T) {
			if r[1] != "PASS" {
				t.Error("it failed in the machine; see its log below")
			}
		})
	}
	if len(results) == 0 || !strings.HasSuffix(strings.TrimSpace(log), "PASS") {
		t.Error("the tests in the machine did not come to their end, or not all of them passed")
	}
	if testing.Verbose() {
		t.Log(log)
	}
	if t.Failed() {
		journal, _ := os.ReadFile(filepath.Join(lab, "journal"))
		t.Logf("tests in the machine:\n%s\njournal of the machine:\n%s", log, journal)
	}
}

var insideResult = regexp.MustCompile(`(?m)^    --- (PASS|FAIL|SKIP): TestInside/(\S+)`)

// oneMachine waits until no other run of the tests has a machine: they would share their cgroups.
func oneMachine(t *testing.T) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "fpm-gate-test-machine.lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// needMachine ends the test where no machine can be booted, as rigtest.Lack does.
func needMachine(t *testing.T) {
	t.Helper()
	rigtest.Need(t, "systemd-nspawn", "nginx", "php-fpm", "curl")
	rigtest.NeedRoot(t, "booting a machine in systemd-nspawn takes root")
	if out, err := exec.Command("systemd-nspawn", append(nspawnFlags("/"), "--volatile=yes", "/usr/bin/true")...).CombinedOutput(); err != nil {
		rigtest.Lack(t, fmt.Sprintf("systemd-nspawn cannot run here: %v\n%s", err, out))
	}
}

// nspawnFlags keep a machine apart from this one, and need neither systemd nor its bus here.
func nspawnFlags(root string) []string {
	return []string{"--quiet", "--directory=" + root, fmt.Sprintf("--machine=fpm-gate-test-%d", os.Getpid()), "--private-network", "--register=no", "--keep-unit", "--console=pipe",
		"--system-call-filter=pidfd_getfd landlock_create_ruleset landlock_add_rule landlock_restrict_self"}
}

// boot boots a machine that runs the tests of its inside, and returns what they wrote when it is off again. lab is a
// folder that it shares, as /lab.
func boot(t *testing.T, lab string) string {
	t.Helper()
	root := makeRoot(t, lab)
	upper := t.TempDir()
	args := append(nspawnFlags(root), "--boot", "--bind="+lab+":/lab")
	for _, dir := range []string{"/usr", "/var/lib/dpkg"} {
		changed := filepath.Join(upper, filepath.Base(dir))
		if err := os.Mkdir(changed, 0o755); err != nil {
			t.Fatal(err)
		}
		args = append(args, fmt.Sprintf("--overlay=%s:%s:%s", dir, changed, dir))
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemd-nspawn", append(args, "systemd.unit=lab.target")...)
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it then halts the machine
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		t.Errorf("systemd-nspawn: %v\n%s", err, console.String())
	}
	log, err := os.ReadFile(filepath.Join(lab, "log"))
	if err != nil {
		t.Errorf("%v\n%s", err, console.String())
	}
	return string(log)
}

// makeRoot makes the root folder of a machine: a Debian of which only /usr is there, and what nginx and PHP-FPM are
// configured by.
func makeRoot(t *testing.T, lab string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"usr", "var/lib/dpkg", "var/log/nginx", "var/lib/nginx", "var/www/html", "etc/dpkg", "etc/systemd/system", "lab"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("cp", "-a", "/etc/alternatives", "/etc/nginx", "/etc/php", filepath.Join(root, "etc")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	osRelease, err := os.ReadFile("/usr/lib/os-release")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	share(t, lab, self, "test")
	const machineID = "5e551043a7ef4b0e8d5a1f2b3c4d5e6f\n" // without one it would be the machine's first boot, which enables all units
	for name, text := range map[string]string{
		"etc/os-release":                 string(osRelease),
		"etc/machine-id":                 machineID,
		"etc/systemd/system/lab.target":  labTarget,
		"etc/systemd/system/lab.service": labService,
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// A machine without a network would wait for it.
	for _, unit := range []string{"systemd-networkd-wait-online.service", "NetworkManager-wait-online.service", "ifupdown-wait-online.service"} {
		if err := os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system", unit)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// share copies a file to the machine's lab.
func share(t *testing.T, lab, path, name string) {
	t.Helper()
	if out, err := exec.Command("cp", path, filepath.Join(lab, name)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

const labTarget = `[Unit]
Requires=basic.target lab.service
After=basic.target lab.service
`

const labService = `[Unit]
After=basic.target

[Service]
Type=oneshot
Environment=` + insideVariable + `=1
WorkingDirectory=/lab
ExecStart=-/lab/test -test.run ^TestInside$ -test.v
ExecStopPost=sh -c 'journalctl --no-pager -u "fpm-gate*" -u nginx -u "php*" >/lab/journal'
ExecStopPost=systemctl exit
StandardOutput=file:/lab/log
StandardError=inherit
`

// packageVersion is the version of the packages that the tests build.
const packageVersion = "1.2.3"

// packages builds the .deb and the .rpm of the program as it is here, once, and returns their folder.
var packages = sync.OnceValues(func() (string, error) {
	var err error
	if packagesDir, err = os.MkdirTemp("", "fpm-gate-packages-"); err != nil {
		return "", err
	}
	return packagesDir, buildPackages(packagesDir)
})

var packagesDir string // is removed at the end

func buildPackages(dir string) error {
	cmd := exec.Command("../../packaging/build", dir, "deb", "rpm")
	cmd.Env = append(os.Environ(), "VERSION=v"+packageVersion, "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the packages: %w\n%s", err, out)
	}
	return nil
}

// builtPackage returns the path of a package.
func builtPackage(t *testing.T, kind string) string {
	t.Helper()
	dir, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	return onlyFile(t, dir, kind)
}

// onlyFile returns the path of the package of a kind in a folder.
func onlyFile(t *testing.T, dir, kind string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*."+kind))
	if err != nil || len(found) != 1 {
		t.Fatalf("got %v (%v), want one .%s", found, err, kind)
	}
	return found[0]
}

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(packagesDir)
	_ = os.RemoveAll(binaryDir)
	os.Exit(code)
}
