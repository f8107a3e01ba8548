package tests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestInitPutsAGateBeforeARunningSite has init read the real configuration of a PHP-FPM and a web server, and does what
// it says then: nothing of the config is edited, and the lines of the web server come from the diff.
func TestInitPutsAGateBeforeARunningSite(t *testing.T) {
	for name, web := range map[string]struct {
		start        func(*rig.Rig, *rig.Site) (*rig.Server, error)
		file, system string // the configuration in the folder of the server, and on a Debian
	}{
		"nginx": {func(r *rig.Rig, site *rig.Site) (*rig.Server, error) {
			return r.Nginx(rig.NginxOptions{Sites: []*rig.Site{site}})
		}, "nginx.conf", "etc/nginx/nginx.conf"},
		"apache2": {(*rig.Rig).Apache, "config", "etc/apache2/apache2.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, name, "php-fpm")
			php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 3})
			site := &rig.Site{FastCGI: php.Addr}
			server := rigtest.Start(t, func(*rig.Site) (*rig.Server, error) { return web.start(r, site) }, site)
			s := &stack{Rig: r, PHP: php, Web: server, Site: site}

			root := t.TempDir()
			linkInto(t, root, web.system, filepath.Join(filepath.Dir(server.LogFile()), web.file))
			folder := filepath.Dir(php.LogFile())
			linkInto(t, root, "etc/php/8.2/fpm/pool.d/www.conf", filepath.Join(folder, "fpm.conf"))
			linkInto(t, root, "etc/php/8.2/fpm/conf.d/rig.ini", filepath.Join(folder, "ini", "rig.ini"))

			file := filepath.Join(t.TempDir(), "fpm-gate.hcl")
			code, _, told := run(t, "init", "--root", root, "--config", file)
			if code != 0 {
				t.Fatalf("init: got exit code %d: %s", code, told)
			}
			dir := shortFolder(t)
			here := strings.NewReplacer("/run/fpm-gate/", dir+"/")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s.Gate = startGate(t, r, rig.GateOptions{Config: here.Replace(string(text))})
			if got := s.info(t, request{path: "/info.php", session: newSession()}).Gate["FPM_GATE_LOCK"]; got != "" {
				t.Fatalf("before the change: got lock %q, want no gate", got)
			}
			applyDiff(t, here.Replace(told))
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
			if got := s.info(t, request{path: "/info.php", session: newSession()}).Gate["FPM_GATE_LOCK"]; got != "held" {
				t.Errorf("after it: got lock %q, want held", got)
			}
			for range 25 { // in save_path, or the gate would report that no session was ever opened
				s.get("/count.php", newSession()+strings.Repeat("x", 8))
			}
			if log := s.Gate.Log(); strings.Contains(log, "ever seen") || !strings.Contains(string(text), "max_connections = 3") {
				t.Errorf("the config does not fit PHP-FPM:\n%s\n%s", text, log)
			}
			if r := ask(site, request{path: "/hello.php"}); r.status != http.StatusOK {
				t.Errorf("got status %d", r.status)
			}
		})
	}
}

// linkInto makes a file of a system of a real one.
func linkInto(t *testing.T, root, name, file string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

// shortFolder is one with a name that leaves room for a socket's.
func shortFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "init-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// applyDiff replaces the lines of a diff in the files that it names.
func applyDiff(t *testing.T, diff string) {
	t.Helper()
	var file, old string
	changes := 0
	for line := range strings.Lines(diff) {
		switch {
		case strings.HasPrefix(line, "+++ "):
			file = strings.TrimSpace(line[4:])
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "-"):
			old = line[1:]
		case strings.HasPrefix(line, "+"):
			text, err := os.ReadFile(file)
			if err != nil || strings.Count(string(text), old) != 1 {
				t.Fatalf("%s: error %v, %d times %q", file, err, strings.Count(string(text), old), old)
			}
			write(t, file, strings.Replace(string(text), old, line[1:], 1))
			changes++
		}
	}
	if changes == 0 {
		t.Fatalf("there is no diff in %s", diff)
	}
}
