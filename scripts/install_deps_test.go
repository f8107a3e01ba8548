package scripts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// packages are those that install-deps knows: for each the purposes that need it, and a file by which it is there.
var packages = map[string]struct {
	purposes string
	file     string
}{
	"nginx":                     {"demo test bench", "usr/sbin/nginx"},
	"php-fpm":                   {"demo test test-workers bench", "usr/sbin/php-fpm8.4"},
	"php-memcached":             {"demo test test-workers bench", "usr/lib/php/20240924/memcached.so"},
	"memcached":                 {"demo test test-workers bench", "usr/bin/memcached"},
	"php-cgi":                   {"test bench", "usr/bin/php-cgi8.4"},
	"php-cli":                   {"test bench", "usr/bin/php"},
	"php-redis":                 {"test test-workers bench", "usr/lib/php/20240924/redis.so"},
	"redis-server":              {"test test-workers bench", "usr/bin/redis-server"},
	"apache2-bin":               {"test bench", "usr/sbin/apache2"},
	"lighttpd":                  {"test bench", "usr/sbin/lighttpd"},
	"haproxy":                   {"test bench", "usr/sbin/haproxy"},
	"caddy":                     {"test bench", "usr/bin/caddy"},
	"libfcgi-bin":               {"test bench", "usr/bin/cgi-fcgi"},
	"libnginx-mod-stream":       {"test bench", "usr/lib/nginx/modules/ngx_stream_module.so"},
	"chromium":                  {"test bench", "usr/bin/chromium"},
	"curl":                      {"test bench", "usr/bin/curl"},
	"groff-base":                {"test bench", "usr/bin/groff"},
	"systemd":                   {"test bench", "usr/bin/systemd-analyze"},
	"systemd-container":         {"test bench", "usr/bin/systemd-nspawn"},
	"podman":                    {"test bench", "usr/bin/podman"},
	"runc":                      {"test bench", "usr/sbin/runc"},
	"dokuwiki":                  {"test bench", "usr/share/dokuwiki/doku.php"},
	"phpmyadmin":                {"test bench", "usr/share/phpmyadmin/index.php"},
	"adminer":                   {"test bench", "usr/share/adminer/adminer.php"},
	"phpldapadmin":              {"test bench", "usr/share/phpldapadmin/htdocs/index.php"},
	"cacti":                     {"test bench", "usr/share/cacti/site/auth_login.php"},
	"icingaweb2":                {"test bench", "usr/share/icingaweb2/public/index.php"},
	"php-illuminate-cache":      {"test bench", "usr/share/php/Illuminate/Cache/autoload.php"},
	"php-illuminate-config":     {"test bench", "usr/share/php/Illuminate/Config/autoload.php"},
	"php-illuminate-container":  {"test bench", "usr/share/php/Illuminate/Container/autoload.php"},
	"php-illuminate-cookie":     {"test bench", "usr/share/php/Illuminate/Cookie/autoload.php"},
	"php-illuminate-encryption": {"test bench", "usr/share/php/Illuminate/Encryption/autoload.php"},
	"php-illuminate-http":       {"test bench", "usr/share/php/Illuminate/Http/autoload.php"},
	"php-illuminate-redis":      {"test bench", "usr/share/php/Illuminate/Redis/autoload.php"},
	"php-illuminate-session":    {"test bench", "usr/share/php/Illuminate/Session/autoload.php"},
	"mediawiki":                 {"test bench", "usr/share/mediawiki/api.php"},
	"dovecot-imapd":             {"test bench", "usr/sbin/dovecot"},
	"roundcube-core":            {"test bench", "var/lib/roundcube/index.php"},
	"wordpress":                 {"test bench", "usr/share/wordpress/wp-login.php"},
	"php-mysql":                 {"test bench", "usr/lib/php/20240924/pdo_mysql.so"},
	"php-sqlite3":               {"test bench", "usr/lib/php/20240924/pdo_sqlite.so"},
	"mariadb-server-core":       {"test bench", "usr/sbin/mariadbd"},
	"promtool":                  {"test bench", "usr/bin/promtool"},
	"gcc":                       {"test test-workers bench", "usr/bin/gcc"},
	"libc6-dev":                 {"test test-workers bench", "usr/include/stdlib.h"},
	"wrk":                       {"bench", "usr/bin/wrk"},
	"git":                       {"fresh", "usr/bin/git"},
	"mmdebstrap":                {"fresh", "usr/bin/mmdebstrap"},
	"debian-archive-keyring":    {"fresh", "usr/share/keyrings/debian-archive-keyring.gpg"},
}

var purposes = []string{"demo", "test", "test-workers", "bench", "fresh"}

// packagesFor returns the packages of a purpose, sorted.
func packagesFor(purpose string) (names []string) {
	for name, p := range packages {
		if slices.Contains(strings.Fields(p.purposes), purpose) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// machine is the root folder of a machine on which install-deps runs: it has the tools of this one, and of the packages
// only those that are put there.
type machine struct {
	t    *testing.T
	root string
}

// newMachine returns a machine with an apt-get that installs the packages above and notes its calls.
func newMachine(t *testing.T, installed ...string) machine {
	t.Helper()
	m := machine{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(m.root, "usr/sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.put("usr/bin/sudo", `exec "$@"`)
	m.put("usr/bin/systemctl", `echo "systemctl $*" >>"$INSTALL_DEPS_ROOT/calls"`)
	m.put("usr/bin/apt-cache", `
		[ -e "$INSTALL_DEPS_ROOT/available/$2" ] && version=1.0 || version='(none)'
		[ "$LC_ALL" = C ] && echo "Candidate: $version" || echo "Installationskandidat: $version"`)
	m.put("usr/bin/apt-get", `
		cd "$INSTALL_DEPS_ROOT"
		[ ! -x usr/sbin/policy-rc.d ] || usr/sbin/policy-rc.d || echo "policy $?" >>calls
		[ "$1" = install ] || exit 0
		for name; do
			case $name in install|-*|*::*) continue ;; esac
			echo "install $name" >>calls
			[ ! -e fails ] || exit 100
			read -r file <"available/$name" || continue
			mkdir -p "$(dirname "$file")" && : >"$file" && chmod +x "$file"
		done`)
	m.write("available/dbconfig-no-thanks", "")
	for name, p := range packages {
		m.write("available/"+name, p.file+"\n")
	}
	for _, name := range installed {
		m.put(packages[name].file, "")
	}
	return m
}

// put writes a program.
func (m machine) put(path, script string) {
	m.t.Helper()
	m.write(path, "#!/bin/sh\n"+script+"\n")
}

func (m machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := rig.WriteProgram(path, []byte(text)); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) remove(path string) {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.root, path)); err != nil {
		m.t.Fatal(err)
	}
}

// run runs install-deps, and returns what it wrote.
func (m machine) run(purpose string) (string, error) {
	out, err := m.command(purpose).CombinedOutput()
	return string(out), err
}

func (m machine) command(purpose string) *exec.Cmd {
	cmd := exec.Command("./install-deps", purpose)
	cmd.Env = []string{
		"INSTALL_DEPS_ROOT=" + m.root, "LC_ALL=de_DE.UTF-8",
		fmt.Sprintf("PATH=%[1]s/usr/bin:%[1]s/usr/sbin:/usr/bin:/bin", m.root),
	}
	return cmd
}

// mustRun is run that has to succeed.
func (m machine) mustRun(purpose string) string {
	m.t.Helper()
	out, err := m.run(purpose)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// calls returns what followed a word in the calls of the machine's programs, sorted.
func (m machine) calls(word string) (found []string) {
	text, _ := os.ReadFile(filepath.Join(m.root, "calls"))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), word+" "); ok {
			found = append(found, rest)
		}
	}
	slices.Sort(found)
	return found
}

func (m machine) wantInstalled(want ...string) {
	m.t.Helper()
	slices.Sort(want)
	if got := m.calls("install"); !slices.Equal(got, want) {
		m.t.Errorf("got %v installed, want %v", got, want)
	}
}

func TestNothingIsInstalledWhereAllIsThere(t *testing.T) {
	for _, purpose := range purposes {
		t.Run(purpose, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, packagesFor(purpose)...)
			if got, want := m.mustRun(purpose), "all that make "+purpose+" needs is installed"; !strings.Contains(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			m.wantInstalled()
		})
	}
}

func TestEachPackageThatIsMissingIsInstalled(t *testing.T) {
	for _, purpose := range purposes {
		for _, name := range packagesFor(purpose) {
			t.Run(purpose+" without "+name, func(t *testing.T) {
				t.Parallel()
				m := newMachine(t, packagesFor(purpose)...)
				m.remove(packages[name].file)
				if got := m.mustRun(purpose); strings.Contains(got, "still missing") {
					t.Errorf("got %q after the install", got)
				}
				if name == "phpmyadmin" || name == "cacti" {
					m.wantInstalled(name, "dbconfig-no-thanks")
				} else {
					m.wantInstalled(name)
				}
			})
		}
	}
}

func TestABareMachineGetsAll(t *testing.T) {
	for _, purpose := range purposes {
		t.Run(purpose, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.mustRun(purpose)
			want := packagesFor(purpose)
			if slices.Contains(want, "phpmyadmin") {
				want = append(want, "dbconfig-no-thanks")
			}
			m.wantInstalled(want...)
		})
	}
}

func TestAnotherPackageWillDo(t *testing.T) {
	for _, tt := range []struct{ name, instead, script string }{
		{"chromium", "usr/bin/chromium-browser", ""},
		{"chromium", "usr/bin/google-chrome", ""},
		{"php-fpm", "usr/sbin/php-fpm8.2", ""},
		{"php-cgi", "usr/bin/php-cgi", ""},
		{"libnginx-mod-stream", "usr/share/nginx/modules/ngx_stream_module.so", ""},
		{"libnginx-mod-stream", "usr/sbin/nginx", "echo 'configure arguments: --with-stream --with-threads' >&2"},
	} {
		t.Run(tt.instead, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, packagesFor("test")...)
			m.remove(packages[tt.name].file)
			m.put(tt.instead, tt.script)
			m.mustRun("test")
			m.wantInstalled()
		})
	}
}

func TestAPackageThatTheReleaseDoesNotHave(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packagesFor("test")...)
	m.remove(packages["caddy"].file)
	m.remove("available/caddy")
	if got, want := m.mustRun("test"), "still missing: caddy"; !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	m.wantInstalled()
}

// Debian 12 has promtool in the package of the server.
func TestAFormerPackageWillDo(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packagesFor("test")...)
	m.remove(packages["promtool"].file)
	m.remove("available/promtool")
	m.write("available/prometheus", packages["promtool"].file+"\n")
	if got := m.mustRun("test"); strings.Contains(got, "still missing") {
		t.Errorf("got %q after the install", got)
	}
	m.wantInstalled("prometheus")
}

func TestADemoNeedsItsServers(t *testing.T) {
	for _, name := range []string{"nginx", "php-fpm"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.remove("available/" + name)
			out, err := m.run("demo")
			if want := "still missing: " + name; err == nil || !strings.Contains(out, want) {
				t.Errorf("got %q (%v), want a failure that is %q", out, err, want)
			}
		})
	}
}

func TestNoServiceIsStartedOrEnabled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("lib/systemd/system/old.service", "")
	m.write("lib/systemd/system/nginx@.service", "")
	m.write("available/nginx", "lib/systemd/system/new.service\n")
	m.remove("available/php-fpm")
	_, _ = m.run("demo") // it fails, for want of PHP-FPM
	if got, want := m.calls("policy"), []string{"101"}; !slices.Equal(got, want) {
		t.Errorf("while the packages were installed: got the policy %v, want %v", got, want)
	}
	if _, err := os.Stat(filepath.Join(m.root, "usr/sbin/policy-rc.d")); err == nil {
		t.Error("the policy is still there")
	}
	if got, want := m.calls("systemctl"), []string{"--quiet disable new.service"}; !slices.Equal(got, want) {
		t.Errorf("got systemctl %q, want %q", got, want)
	}
}

// TestCronDoesNotRunCacti: only a Cacti that install-deps has installed loses its job.
func TestCronDoesNotRunCacti(t *testing.T) {
	for name, installed := range map[string]bool{"installed before": true, "installed now": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, packagesFor("test")...)
			m.remove(packages["dokuwiki"].file)
			if !installed {
				m.remove(packages["cacti"].file)
			}
			m.write("etc/cron.d/cacti", "*/5 * * * * www-data php poller.php\n")
			m.mustRun("test")
			for file, want := range map[string]bool{"etc/cron.d/cacti": installed, "etc/cron.d/cacti.disabled": !installed} {
				if _, err := os.Stat(filepath.Join(m.root, file)); (err == nil) != want {
					t.Errorf("%s: got %v, want that it exists: %v", file, err, want)
				}
			}
		})
	}
}

func TestAFailedInstallLeavesNoPolicy(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write("fails", "")
	if out, err := m.run("test"); err == nil {
		t.Errorf("got success, want that it fails\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(m.root, "usr/sbin/policy-rc.d")); err == nil {
		t.Error("the policy is still there")
	}
}

func TestThePolicyOfAnotherStays(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.put("usr/sbin/policy-rc.d", "exit 104")
	m.mustRun("demo")
	if _, err := os.Stat(filepath.Join(m.root, "usr/sbin/policy-rc.d")); err != nil {
		t.Error(err)
	}
}

func TestWithoutRootAndSudo(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.remove("usr/bin/sudo")
	cmd := m.command("demo")
	if os.Geteuid() == 0 {
		for dir := m.root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		script, err := os.ReadFile("install-deps")
		if err != nil {
			t.Fatal(err)
		}
		m.write("install-deps", string(script)) // the repository may be closed to others
		cmd.Path, cmd.Dir = filepath.Join(m.root, "install-deps"), m.root
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	want := "as root: apt-get install --no-install-recommends nginx php-fpm php-memcached memcached"
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("got %q (%v), want a failure with %q", out, err, want)
	}
	m.wantInstalled()
}

func TestWithoutApt(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.remove("usr/bin/apt-get")
	if out, err := m.run("demo"); err == nil || !strings.Contains(out, "there is no apt-get here") {
		t.Errorf("got %q (%v), want a failure that names apt-get", out, err)
	}
}

func TestAnUnknownPurposeIsRefused(t *testing.T) {
	t.Parallel()
	for _, purpose := range []string{"", "all"} {
		if out, err := newMachine(t).run(purpose); err == nil || !strings.Contains(out, "usage: ") {
			t.Errorf("%q: got %q (%v), want the usage", purpose, out, err)
		}
	}
}
