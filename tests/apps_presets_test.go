package tests

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestPresetsFitTheirApplications runs what Debian has of them, with nothing in the session block but application. Each
// begins a session as its visitors do, and returns a page that is asked for in it.
func TestPresetsFitTheirApplications(t *testing.T) {
	for name, app := range map[string]struct {
		programs []string
		install  func(*testing.T, *rig.Rig) (params string)
		begin    func(*visitor) (page string)
	}{
		"wordpress":    {[]string{"wordpress", "mariadbd"}, installWordPress, beginWordPress},
		"mediawiki":    {[]string{"mediawiki", "php", "pdo-sqlite"}, installMediaWiki, beginMediaWiki},
		"roundcube":    {[]string{"roundcube", "php", "pdo-sqlite"}, installRoundcube, beginRoundcube},
		"phpmyadmin":   {[]string{"phpmyadmin", "mariadbd"}, installGatedPHPMyAdmin, beginPHPMyAdmin},
		"adminer":      {[]string{"adminer", "mariadbd"}, installAdminer, beginAdminer},
		"cacti":        {[]string{"cacti", "mariadbd"}, installCacti, beginCacti},
		"icingaweb2":   {[]string{"icingaweb2"}, installIcingaWeb, beginIcingaWeb},
		"phpldapadmin": {[]string{"phpldapadmin"}, installPHPLDAPadmin, beginPHPLDAPadmin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, append(app.programs, "nginx", "php-fpm")...)
			params := app.install(t, r)
			php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 6, AllExtensions: true})
			gate := startGate(t, r, rig.GateOptions{
				Upstream: php.Addr,
				Settings: fmt.Sprintf("session { application = %q }\nlock { server_timing = true }", name),
			})
			site := &rig.Site{FastCGI: gate.Addr, Settings: params + "fastcgi_param RUN gated;"}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
			page := app.begin(newVisitor(t, site)) // which may install it
			keys := map[string]bool{}
			for range 2 {
				v := newVisitor(t, site)
				app.begin(v)
				before := v.locked
				for range 3 {
					v.get(page)
				}
				if got := v.locked - before; got != 3 {
					t.Errorf("of 3 requests of a session %d had a lock", got)
				}
				keys[v.key(page)] = true
			}
			if len(keys) != 2 || keys[""] {
				t.Errorf("two visitors have the keys %v, want one each", keys)
			}
			if stranger := newVisitor(t, site); stranger.key(page) != "" {
				t.Error("a visitor without a session has a lock")
			}
			if log := gate.Log(); strings.Contains(log, "session id") {
				t.Errorf("the gate reports a misfit:\n%s", log)
			}
		})
	}
}

// key returns the key of the lock that a page is asked for under; keyScript shows it in the place of the page.
func (v *visitor) key(page string) string {
	path, _, _ := strings.Cut(page, "?")
	dir := path[:strings.LastIndexByte(path, '/')]
	text := v.get(dir + "/gate-key.php")
	return strings.TrimSpace(text)
}

// showKeys puts a script that shows the key of a request's lock into a folder of an application.
func showKeys(t *testing.T, folder string) {
	t.Helper()
	write(t, filepath.Join(folder, "gate-key.php"), `<?php echo $_SERVER['FPM_GATE_KEY'] ?? '';`)
}

// makeKeys puts that script next to an application, in a folder of its own.
func makeKeys(t *testing.T, r *rig.Rig) {
	t.Helper()
	folder := filepath.Join(r.DocRoot, "keys")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	showKeys(t, folder)
}

func installWordPress(t *testing.T, r *rig.Rig) string {
	db := rigtest.Start(t, r.MariaDB, rig.MariaDBOptions{SQL: []string{
		"create or replace user visitor@localhost identified by 'secret'", "grant all on *.* to visitor@localhost", "create database wp",
	}})
	app := filepath.Join(r.DocRoot, "wp")
	copyFolder(t, "/usr/share/wordpress", app, "wp-config.php")
	write(t, app+"/wp-config.php", fmt.Sprintf(`<?php
define('DB_NAME', 'wp');
define('DB_USER', 'visitor');
define('DB_PASSWORD', 'secret');
define('DB_HOST', 'localhost:%s');
define('DB_CHARSET', 'utf8mb4');
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('DISABLE_WP_CRON', true);
define('AUTH_KEY', 'a'); define('SECURE_AUTH_KEY', 'b'); define('LOGGED_IN_KEY', 'c'); define('NONCE_KEY', 'd');
define('AUTH_SALT', 'e'); define('SECURE_AUTH_SALT', 'f'); define('LOGGED_IN_SALT', 'g'); define('NONCE_SALT', 'h');
$table_prefix = 'wp_';
if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
`, db.Addr.Address))
	showKeys(t, app+"/wp-admin")
	return ""
}

// beginWordPress logs in, with a name that has a space in it, and installs the site before if that has not been done.
func beginWordPress(v *visitor) (page string) {
	const installed = "/wp/wp-admin/install.php?step=2"
	if strings.Contains(v.get("/wp/wp-admin/install.php"), `name="weblog_title"`) || strings.Contains(v.get(installed), "weblog_title") {
		v.wants(v.post(installed, url.Values{
			"weblog_title": {"Site"}, "user_name": {"a visitor"}, "admin_password": {"secret-secret"},
			"admin_password2": {"secret-secret"}, "pw_weak": {"on"}, "admin_email": {"visitor@example.org"}, "blog_public": {"0"},
		}), "wp-login.php")
	}
	v.get("/wp/wp-login.php")
	v.post("/wp/wp-login.php", url.Values{"log": {"a visitor"}, "pwd": {"secret-secret"}, "testcookie": {"1"}})
	v.wants(v.get("/wp/wp-admin/profile.php"), "a visitor")
	return "/wp/wp-admin/profile.php"
}

// installMediaWiki makes a wiki in files, with the program where Debian has it.
func installMediaWiki(t *testing.T, r *rig.Rig) string {
	php, err := rig.Find("php")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if err := os.Symlink("/usr/share/mediawiki", filepath.Join(r.DocRoot, "w")); err != nil {
		t.Fatal(err)
	}
	runPHP(t, php, "/usr/share/mediawiki/maintenance/install.php", "--dbtype", "sqlite", "--dbpath", data, "--dbname", "my_wiki",
		"--server", "http://127.0.0.1", "--scriptpath", "/w", "--pass", "secret-secret", "--confpath", data, "Wiki", "Visitor")
	makeKeys(t, r)
	return "fastcgi_param MW_CONFIG_FILE " + filepath.Join(data, "LocalSettings.php") + ";"
}

// beginMediaWiki opens the form for a login, which begins a session. The page is one next to the wiki.
func beginMediaWiki(v *visitor) (page string) {
	v.wants(v.get("/w/index.php?title=Special:UserLogin"), "wpLoginToken")
	return "/keys/gate-key.php"
}

func installRoundcube(t *testing.T, r *rig.Rig) string {
	php, err := rig.Find("php")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if err := os.Symlink("/var/lib/roundcube", filepath.Join(r.DocRoot, "mail")); err != nil {
		t.Fatal(err)
	}
	write(t, data+"/config.inc.php", fmt.Sprintf(`<?php
$config['db_dsnw'] = 'sqlite:///%[1]s/mail.db?mode=0640';
$config['des_key'] = '0123456789abcdefghijklmn';
$config['log_dir'] = '%[1]s';
$config['temp_dir'] = '%[1]s';
$config['plugins'] = [];
`, data))
	copyFolder(t, "/etc/roundcube", data, "config.inc.php", "debian-db-roundcube.php", "plugins", "htaccess")
	const makeTables = `(new PDO("sqlite:" . $argv[1]))->exec(file_get_contents("/usr/share/roundcube/SQL/sqlite.initial.sql"));`
	runPHP(t, php, "-r", makeTables, data+"/mail.db")
	makeKeys(t, r)
	return "fastcgi_param ROUNDCUBE_CONFIG_DIR " + data + ";"
}

// beginRoundcube opens the page for a login, which begins a session.
func beginRoundcube(v *visitor) (page string) {
	v.wants(v.get("/mail/index.php"), "_token")
	return "/keys/gate-key.php"
}

func installGatedPHPMyAdmin(t *testing.T, r *rig.Rig) string {
	installPHPMyAdmin(t, r)
	showKeys(t, filepath.Join(r.DocRoot, "pma"))
	return ""
}

func beginPHPMyAdmin(v *visitor) (page string) {
	form := hidden(v.get("/pma/index.php"))
	form.Set("pma_username", "visitor")
	form.Set("pma_password", "secret")
	v.wants(v.follow(v.post("/pma/index.php?route=/", form)), "visitor@localhost")
	return "/pma/index.php?route=/server/databases"
}
