package systemd

import (
	"bytes"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// maxExposure is what `systemd-analyze security` may find, from 0 (nothing) to 10.
const maxExposure = 1.5

// maxHelperExposure is the same for the helper, which has two capabilities. It does without ProtectSystem= and
// ProtectHome=, as it sees none of what they protect.
const maxHelperExposure = 2.0

func TestUnitsAreSandboxed(t *testing.T) {
	t.Parallel()
	rigtest.Need(t, "systemd-analyze")
	for unit, maxExposure := range map[string]float64{
		"fpm-gate.service": maxExposure, "fpm-gate@.service": maxExposure, "fpm-gate-helper.service": maxHelperExposure,
	} {
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "../../systemd/"+unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
		if exposure := exposureOf(string(out)); exposure < 0 || exposure > maxExposure {
			t.Errorf("%s: got %.1f, want at most %.1f", unit, exposure, maxExposure)
		}
	}
}

// exposureOf reads the last line of `systemd-analyze security`; -1 if there is none.
func exposureOf(report string) float64 {
	found := regexp.MustCompile(`Overall exposure level[^:]*: ([0-9.]+)`).FindStringSubmatch(report)
	if found == nil {
		return -1
	}
	exposure, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		return -1
	}
	return exposure
}

func TestTemplatesAreTheUnitsOfAnInstance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ unit, template string }{
		{"fpm-gate.service", "fpm-gate@.service"},
		{"fpm-gate.socket", "fpm-gate@.socket"},
	} {
		want := settings(t, tt.unit)
		for _, r := range []struct{ of, with string }{
			{"/etc/fpm-gate/fpm-gate.", "/etc/fpm-gate/%i."},
			{"sockets.target fpm-gate.service", "sockets.target fpm-gate@%i.service"},
			{"fpm-gate.socket", "fpm-gate@%i.socket"},
			{"/www.sock", "/%i.sock"},
			{"FileDescriptorName=www", "FileDescriptorName=%i"},
		} {
			want = strings.ReplaceAll(want, r.of, r.with)
		}
		if got := strings.ReplaceAll(settings(t, tt.template), ", %i\n", "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.template, got, want)
		}
	}
}

// settings are the lines of a unit without its comments.
func settings(t *testing.T, unit string) string {
	t.Helper()
	text, err := os.ReadFile("../../systemd/" + unit)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestPackagesAreReproducible(t *testing.T) {
	t.Parallel()
	again := t.TempDir()
	first := map[string]string{"deb": builtPackage(t, "deb"), "rpm": builtPackage(t, "rpm")}
	if err := buildPackages(again); err != nil {
		t.Fatal(err)
	}
	for kind, path := range first {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(onlyFile(t, again, kind))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("two builds of the .%s differ", kind)
		}
	}
}

// A unit with a group that is not there does not start. That of the web server may come with a later package.
func TestTheGroupsOfTheUnitsAreMade(t *testing.T) { // not in parallel with a test that builds the packages again
	builtPackage(t, "rpm")
	root := t.TempDir()
	cmd := exec.Command("make", "--no-print-directory", "-C", "../..", "install", "DESTDIR="+root, "PREFIX=/opt/gate", "WEB_GROUP=web")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, from := range map[string]struct{ units, sysusers, group string }{
		"deb":          {"../../systemd/fpm-gate*.*", "../../systemd/sysusers.conf", "www-data"},
		"rpm":          {"../../build/package/rpm/fpm-gate*.*", "../../build/package/rpm/sysusers.conf", "nginx"},
		"make install": {root + "/opt/gate/lib/systemd/system/*", root + "/opt/gate/lib/sysusers.d/fpm-gate.conf", "web"},
	} {
		units, err := filepath.Glob(from.units)
		if err != nil || len(units) < 6 {
			t.Fatalf("%s: got the units %v (%v), want 6", name, units, err)
		}
		made, err := os.ReadFile(from.sysusers)
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for _, path := range units {
			unit, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range regexp.MustCompile(`(?m)^(?:SupplementaryGroups|SocketGroup|Group)=(\S+)`).FindAllStringSubmatch(string(unit), -1) {
				named++
				if !regexp.MustCompile(`(?m)^[gu] ` + group[1] + ` `).Match(made) {
					t.Errorf("%s: %s names the group %s, which %s does not make", name, filepath.Base(path), group[1], from.sysusers)
				}
			}
		}
		if named < 7 || !strings.Contains(string(made), "g "+from.group+" -") {
			t.Errorf("%s: found %d groups and in sysusers.conf\n%s", name, named, made)
		}
	}
}

func TestMakeInstallPutsAllThatTheUnitsName(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	cmd := exec.Command("make", "--no-print-directory", "-C", "../..", "install", "DESTDIR="+root, "PREFIX=/opt/gate", "WEB_GROUP=nginx")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, path := range []string{
		"/etc/fpm-gate/fpm-gate.hcl",
		"/opt/gate/bin/fpm-gate",
		"/opt/gate/lib/systemd/system/fpm-gate.socket",
		"/opt/gate/lib/systemd/system/fpm-gate@.service",
		"/opt/gate/lib/sysusers.d/fpm-gate.conf",
		"/opt/gate/lib/tmpfiles.d/fpm-gate.conf",
		"/opt/gate/share/man/man8/fpm-gate.8",
		"/opt/gate/share/bash-completion/completions/fpm-gate",
	} {
		if info, err := os.Stat(root + path); err != nil || info.Size() == 0 {
			t.Errorf("%s: got %v, want a file with something in it", path, err)
		}
	}
	units, err := filepath.Glob(root + "/opt/gate/lib/systemd/system/*")
	if err != nil || len(units) != 6 {
		t.Fatalf("got the units %v (%v), want 6", units, err)
	}
	for _, path := range units {
		unit, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, wrong := range []string{"/usr/bin/fpm-gate", "www-data"} {
			if strings.Contains(string(unit), wrong) {
				t.Errorf("%s has %s in it:\n%s", filepath.Base(path), wrong, unit)
			}
		}
	}
}
