package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrMissing is wrapped by errors about programs that are not installed.
var ErrMissing = errors.New("not installed")

// WriteProgram writes a program or script that can be run at once. Any process that is started while a file is written
// has it open until its own program runs, and for that long the file cannot be run: "text file busy".
func WriteProgram(path string, text []byte) error {
	syscall.ForkLock.RLock() // nothing is started
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, text, 0o755)
}

// CopyProgram copies a program, to be run at once.
func CopyProgram(from, to string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return WriteProgram(to, program)
}

// program is something that the rig needs from the system.
type program struct {
	pkg   string   // the Debian package that holds it
	globs []string // where to look besides PATH; a name without a slash is looked up in PATH
}

// programs are the programs that [Find] knows, by name.
var programs = map[string]program{
	"nginx":         {"nginx", []string{"nginx"}},
	"nginx-stream":  {"libnginx-mod-stream", streamModules},
	"php-fpm":       {"php-fpm", []string{"/usr/sbin/php-fpm[0-9]*", "php-fpm"}},
	"php-cgi":       {"php-cgi", []string{"/usr/bin/php-cgi[0-9]*", "php-cgi"}},
	"php":           {"php-cli", []string{"php"}},
	"php-memcached": {"php-memcached", []string{"/usr/lib/php/*/memcached.so"}},
	"php-redis":     {"php-redis", []string{"/usr/lib/php/*/redis.so"}},
	"memcached":     {"memcached", []string{"memcached"}},
	"redis-server":  {"redis-server", []string{"redis-server"}},
	"apache2":       {"apache2-bin", []string{"apache2"}},
	"lighttpd":      {"lighttpd", []string{"lighttpd"}},
	"haproxy":       {"haproxy", []string{"haproxy"}},
	"caddy":         {"caddy", []string{"caddy"}},
	"cgi-fcgi":      {"libfcgi-bin", []string{"cgi-fcgi"}},
	"chromium":      {"chromium", []string{"chromium", "chromium-browser", "google-chrome"}},
	"dokuwiki":      {"dokuwiki", []string{"/usr/share/dokuwiki/doku.php"}},
	"phpldapadmin":  {"phpldapadmin", []string{"/usr/share/phpldapadmin/htdocs/index.php"}},
	"phpmyadmin":    {"phpmyadmin", []string{"/usr/share/phpmyadmin/index.php"}},
	"adminer":       {"adminer", []string{"/usr/share/adminer/adminer.php"}},
	"cacti":         {"cacti", []string{"/usr/share/cacti/site/auth_login.php"}},
	"icingaweb2":    {"icingaweb2", []string{"/usr/share/icingaweb2/public/index.php"}},
	"mediawiki":     {"mediawiki", []string{"/usr/share/mediawiki/api.php"}},
	"dovecot":       {"dovecot-imapd", []string{"/usr/sbin/dovecot"}},
	"roundcube":     {"roundcube-core", []string{"/var/lib/roundcube/index.php"}},
	"wordpress":     {"wordpress", []string{"/usr/share/wordpress/wp-login.php"}},
	"pdo-sqlite":    {"php-sqlite3", []string{"/usr/lib/php/*/pdo_sqlite.so"}},
	"pdo-mysql":     {"php-mysql", []string{"/usr/lib/php/*/pdo_mysql.so"}},
	"illuminate":    {"php-illuminate-session", []string{"/usr/share/php/Illuminate/Session/autoload.php"}},
	"mariadbd":      {"mariadb-server-core", []string{"mariadbd"}},
	"wrk":           {"wrk", []string{"wrk"}},

	"promtool":        {"promtool", []string{"promtool"}},
	"curl":            {"curl", []string{"curl"}},
	"groff":           {"groff-base", []string{"groff"}},
	"podman":          {"podman", []string{"podman"}},
	"runc":            {"runc", []string{"runc"}},
	"systemd-nspawn":  {"systemd-container", []string{"systemd-nspawn"}},
	"systemd-analyze": {"systemd", []string{"systemd-analyze"}},
}

// Find returns the path of a program, or of a module or PHP extension, by the name, or a prefix of it, that its Debian
// package has. Of several versions it takes the highest. The error for one that is missing wraps [ErrMissing].
func Find(name string) (string, error) {
	p, ok := programs[name]
	if !ok {
		return "", fmt.Errorf("find %s: the rig does not know it", name)
	}
	for _, glob := range p.globs {
		if path := lookUp(glob); path != "" {
			return path, nil
		}
	}
	return "", missing([]string{name})
}

// Need returns nil if all of the named programs are there, else one error that wraps [ErrMissing] and says what to
// install.
func Need(names ...string) error {
	var absent []string
	for _, name := range names {
		if _, err := Find(name); errors.Is(err, ErrMissing) {
			absent = append(absent, name)
		} else if err != nil {
			return err
		}
	}
	if absent == nil {
		return nil
	}
	return missing(absent)
}

func missing(names []string) error {
	var pkgs []string
	for _, name := range names {
		pkgs = append(pkgs, programs[name].pkg)
	}
	slices.Sort(pkgs)
	return fmt.Errorf("%s: %w; on Debian and Ubuntu: apt-get install --no-install-recommends %s",
		strings.Join(names, ", "), ErrMissing, strings.Join(slices.Compact(pkgs), " "))
}

// lookUp finds a program in PATH, or in the folders of system programs, which an ordinary user's PATH lacks; or the
// highest version that a pattern matches.
func lookUp(glob string) string {
	if !strings.Contains(glob, "/") {
		if path, err := exec.LookPath(glob); err == nil {
			return path
		}
		return firstFile("/usr/local/sbin/"+glob, "/usr/sbin/"+glob)
	}
	paths, _ := filepath.Glob(glob)
	if len(paths) == 0 {
		return ""
	}
	return slices.MaxFunc(paths, compareVersions)
}

func firstFile(paths ...string) string {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// compareVersions compares php-fpm8.2 and php-fpm8.10 by their numbers.
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

func numbers(s string) []int {
	var all []int
	for _, digits := range strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		n, _ := strconv.Atoi(digits)
		all = append(all, n)
	}
	return all
}
