package tests

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// application is one that is measured: what a burst of parallel requests of one session loses.
type application struct {
	programs []string
	session  string                                     // the lines of the config
	setUp    func(*testing.T, *rig.Rig) (params string) // of nginx
	ini      func(*testing.T, *rig.Rig) map[string]string
	locks    bool // its sessions are locked, so nothing is lost without a gate either
	burst    func(*visitor) (updates, lost int)
}

// TestApplicationsLoseNoUpdates sends each application bursts of requests of one session, with the gate and without it.
// docs/APPLICATIONS.md has the figures.
func TestApplicationsLoseNoUpdates(t *testing.T) {
	for name, app := range map[string]application{
		"Symfony, files": {[]string{"illuminate"}, `application = "symfony"` + "\n" + `cookies = ["symfony_app"]`, symfony("native"), nil, true, addMany},
		"Symfony, Redis": {[]string{"illuminate", "redis-server", "php-redis"}, `cookies = ["symfony_app"]`, symfony("redis"), nil, false, addMany},
		"Symfony, PDO":   {[]string{"illuminate", "pdo-sqlite", "php"}, `cookies = ["symfony_app"]`, symfony("pdo"), nil, false, addMany},
		"DokuWiki, Redis": {[]string{"dokuwiki", "redis-server", "php-redis"}, `cookies = ["DokuWiki"]`, dokuWiki, redisSessions,
			false, viewPages},
		"Roundcube, its database": {[]string{"roundcube", "dovecot", "php", "pdo-sqlite"}, `application = "roundcube"`,
			mailbox, nil, false, composeMails},
		"phpMyAdmin, Redis": {[]string{"phpmyadmin", "mariadbd", "redis-server", "php-redis"}, `application = "phpmyadmin"`,
			func(t *testing.T, r *rig.Rig) string {
				installPHPMyAdmin(t, r)
				return ""
			}, redisSessions, false, viewTables},
		"Adminer, Redis": {[]string{"adminer", "mariadbd", "redis-server", "php-redis"}, `application = "adminer"`, installAdminer,
			redisSessions, false, runStatements},
		"WordPress, its database": {[]string{"wordpress", "mariadbd"}, `application = "wordpress"`, installWordPress, nil, false, dismissPointers},
		"MediaWiki, its object cache": {[]string{"mediawiki", "php", "pdo-sqlite"}, `application = "mediawiki"`, installMediaWiki,
			nil, false, openEditForms},
		"Cacti, its database": {[]string{"cacti", "mariadbd"}, `application = "cacti"`, installCacti, nil, false, filterLists},
		"Icinga Web 2, files": {[]string{"icingaweb2"}, `application = "icingaweb2"`, installIcingaWeb, nil, false, addDashlets},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, append(app.programs, "nginx", "php-fpm")...)
			params := app.setUp(t, r)
			o := rig.PHPOptions{Workers: 8, AllExtensions: true}
			if app.ini != nil {
				o.INI = app.ini(t, r)
			}
			php := rigtest.Start(t, r.PHPFPM, o)
			gate := startGate(t, r, rig.GateOptions{
				Upstream: php.Addr,
				Settings: "session {\n" + app.session + "\n}\nlock {\nmax_wait = \"1m\"\nserver_timing = true\n}",
			})
			gated := &rig.Site{FastCGI: gate.Addr, Settings: params + "fastcgi_param RUN gated;"}
			straight := &rig.Site{FastCGI: php.Addr, Settings: params + "fastcgi_param RUN straight;"}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{gated, straight}})
			n, lost := app.burst(newVisitor(t, straight))
			for tries := 1; lost == 0 && !app.locks && tries < 20; tries++ { // the requests did not meet
				again := newVisitor(t, straight)
				again.most = 2 // Roundcube loses nothing in requests that take half a second
				n, lost = app.burst(again)
			}
			with := newVisitor(t, gated)
			m, lostWith := app.burst(with)
			if lostWith > 0 {
				t.Errorf("with the gate %d of %d updates are lost", lostWith, m)
			}
			if lost == 0 && !app.locks {
				t.Error("without the gate no update is lost either: this test shows nothing")
			}
			if with.locked < m {
				t.Errorf("with the gate %d requests had a lock, want %d", with.locked, m)
			}
			t.Logf("%s: lost without the gate: %d of %d; with it: %d of %d", name, lost, n, lostWith, m)
		})
	}
}

// redisSessions are PHP's own in Redis, without locks, as phpredis comes.
func redisSessions(t *testing.T, r *rig.Rig) map[string]string {
	return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), false)
}

// symfony configures symfony.php.
func symfony(handler string) func(*testing.T, *rig.Rig) string {
	return func(t *testing.T, r *rig.Rig) string {
		params := "fastcgi_param SESSION_HANDLER " + handler + ";"
		switch handler {
		case "redis":
			params += "fastcgi_param REDIS_PORT " + rigtest.Start(t, r.Redis, rig.StoreOptions{}).Addr.Port() + ";"
		case "pdo":
			rigtest.Need(t, "php")
			php, err := rig.Find("php")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "sessions.db")
			runPHP(t, php, `-r`, `require "/usr/share/php/Symfony/Component/HttpFoundation/autoload.php";
				(new Symfony\Component\HttpFoundation\Session\Storage\Handler\PdoSessionHandler("sqlite:" . $argv[1]))->createTable();`, file)
			params += "fastcgi_param DATABASE " + file + ";"
		}
		return params
	}
}

// all asks for pages at once, and returns their texts.
func (v *visitor) all(paths ...string) []string {
	v.t.Helper()
	texts := make([]string, len(paths))
	v.atOnce(len(paths), func(part *visitor, i int) { texts[i] = part.get(paths[i]) })
	return texts
}

// atOnce has n parts of a visitor, with the same session, do something at once, or as many as it may.
func (v *visitor) atOnce(n int, do func(part *visitor, i int)) {
	v.t.Helper()
	parts := make([]*visitor, n)
	slots := make(chan struct{}, cmp.Or(v.most, n))
	var done sync.WaitGroup
	for i := range parts {
		parts[i] = &visitor{t: v.t, site: v.site, client: v.client}
		slots <- struct{}{}
		done.Go(func() {
			defer func() { <-slots }()
			do(parts[i], i)
		})
	}
	done.Wait()
	for _, part := range parts {
		v.locked += part.locked
	}
}

// newName returns a name that has not been used on a site of the test.
func (v *visitor) newName() string { return fmt.Sprintf("%s%d", v.run(), time.Now().UnixNano()) }

// addMany adds to a list in the session.
func addMany(v *visitor) (updates, lost int) {
	const n = 40
	v.get("/symfony.php?do=add")
	var paths []string
	for range n {
		paths = append(paths, "/symfony.php?do=add&ms=5")
	}
	v.all(paths...)
	got, err := strconv.Atoi(v.get("/symfony.php?do=list"))
	if err != nil {
		v.t.Error(err)
	}
	return n + 1, n + 1 - got
}

// wikiPages are what viewPages looks at.
const wikiPages = 8

// dokuWiki installs a DokuWiki with pages.
func dokuWiki(t *testing.T, r *rig.Rig) string {
	installDokuWiki(t, r)
	settings, err := os.ReadFile(filepath.Join(r.DocRoot, "wiki/conf/local.php"))
	if err != nil {
		t.Fatal(err)
	}
	data := regexp.MustCompile(`'savedir'\] = '([^']+)/'`).FindStringSubmatch(string(settings))
	if data == nil {
		t.Fatalf("there is no savedir in %s", settings)
	}
	for _, run := range []string{"gated", "straight"} {
		for i := range wikiPages {
			write(t, filepath.Join(data[1], run, "pages", fmt.Sprintf("page%d.txt", i)), fmt.Sprintf("====== Page %d ======\n", i))
		}
	}
	return ""
}

// viewPages looks at pages at once, each of which the session should remember as one that was seen.
func viewPages(v *visitor) (updates, lost int) {
	page := func(i int) string { return fmt.Sprintf("/wiki/doku.php?id=page%d", i) }
	var paths []string
	for i := range wikiPages {
		v.get(page(i)) // it is in DokuWiki's cache then
		paths = append(paths, page(i))
	}
	fresh := newVisitor(v.t, v.site)
	fresh.get("/wiki/doku.php?id=start")
	fresh.all(paths...)
	v.locked += fresh.locked
	trace := fresh.get("/wiki/doku.php?id=start")
	_, trace, _ = strings.Cut(trace, `class="trace"`)
	trace, _, _ = strings.Cut(trace, "</div>")
	for i := range wikiPages {
		if !strings.Contains(trace, fmt.Sprintf("page%d", i)) {
			lost++
		}
	}
	return wikiPages, lost
}

// viewTables looks at tables at once, each of which the session should remember as a recent one.
func viewTables(v *visitor) (updates, lost int) {
	const n = 8
	page := func(route string) string { return "/pma/index.php?route=" + route }
	db := v.run()
	form := hidden(v.get("/pma/index.php"))
	form.Set("pma_username", "visitor")
	form.Set("pma_password", "secret")
	v.wants(v.follow(v.post(page("/"), form)), "visitor@localhost")
	var sql string
	var paths []string
	for i := range n {
		sql += fmt.Sprintf("create table recent%d (id int primary key);\n", i)
		paths = append(paths, page(fmt.Sprintf("/sql&pos=0&db=%s&table=recent%d", db, i)))
	}
	form = hidden(v.get(page("/database/import&db=" + db)))
	form.Set("ajax_request", "1")
	form.Set("format", "sql")
	v.upload(page("/import"), form, "import_file", "tables.sql", sql)
	v.all(paths...)
	recent := v.get(page("/recent-table&ajax_request=1&recent_table=1"))
	for i := range n {
		if !strings.Contains(recent, fmt.Sprintf("recent%d", i)) {
			lost++
		}
	}
	return n, lost
}

// mailbox installs a Roundcube with a Dovecot behind it, which takes any user.
func mailbox(t *testing.T, r *rig.Rig) string {
	rigtest.NeedRoot(t, "Dovecot takes root")
	imap := startDovecot(t, r)
	params := installRoundcube(t, r)
	config := strings.TrimSuffix(strings.TrimPrefix(params, "fastcgi_param ROUNDCUBE_CONFIG_DIR "), ";") + "/config.inc.php"
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, config, fmt.Sprintf("%s$config['imap_host'] = '%s';\n", text, imap))
	return params
}

// startDovecot starts a Dovecot, which ends with the test, and returns its address.
func startDovecot(t *testing.T, r *rig.Rig) rig.Addr {
	t.Helper()
	program, err := rig.Find("dovecot")
	if err != nil {
		t.Fatal(err)
	}
	version, err := exec.Command(program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "dovecot-") // for an unprivileged user, and short enough for its sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const unprivileged = 65534
	for _, folder := range []string{dir, dir + "/run", dir + "/mail"} {
		if err := errors.Join(os.MkdirAll(folder, 0o755), os.Chmod(folder, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/mail", unprivileged, unprivileged); err != nil {
		t.Fatal(err)
	}
	addr, err := r.Reserve("tcp", "dovecot")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/dovecot.conf", strings.NewReplacer("DIR", dir, "HOST", addr.Host(), "PORT", addr.Port()).Replace(dovecotConfig(string(version))))
	cmd := exec.Command(program, "-F", "-c", dir+"/dovecot.conf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	eventually(t, "Dovecot listens", func() bool {
		conn, err := net.Dial("tcp", addr.Address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr
}

// dovecotConfig returns the configuration of a version: 2.4 has other names for much of it.
func dovecotConfig(version string) string {
	if strings.HasPrefix(version, "2.3.") {
		return dovecotAll + dovecot23
	}
	return dovecotFirst24 + dovecotAll + dovecot24
}

const (
	dovecotAll = `protocols = imap
base_dir = DIR/run
state_dir = DIR/run
log_path = DIR/log
ssl = no
first_valid_uid = 1
first_valid_gid = 1
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`
	dovecot23 = `disable_plaintext_auth = no
mail_location = maildir:DIR/mail/%u
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=DIR/mail/%u
}
service imap-login {
  chroot =
  inet_listener imap {
    address = HOST
    port = PORT
  }
  inet_listener imaps {
    port = 0
  }
}
`
	// What has to stand first.
	dovecotFirst24 = `dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
`
	dovecot24 = `auth_allow_cleartext = yes
mail_driver = maildir
mail_path = DIR/mail/%{user}
passdb static {
  password = secret
}
userdb static {
  fields {
    uid = 65534
    gid = 65534
    home = DIR/mail/%{user}
  }
}
service imap-login {
  chroot =
  inet_listener imap {
    listen = HOST
    port = PORT
  }
  inet_listener imaps {
    port = 0
  }
}
`
)

// composeMails logs in and opens the form for a new mail several times at once. The session has to know each of them, or
// its mail cannot be sent.
func composeMails(v *visitor) (updates, lost int) {
	const n = 8
	form := hidden(v.get("/mail/index.php"))
	for name, value := range map[string]string{"_user": "visitor-" + v.run(), "_pass": "secret", "_task": "login", "_action": "login"} {
		form.Set(name, value)
	}
	if to := v.post("/mail/index.php?_task=login", form); !strings.Contains(to, "_task=mail") {
		v.t.Fatalf("the login leads to %.300q", to)
	}
	var paths []string
	for range n {
		paths = append(paths, "/mail/index.php?_task=mail&_action=compose")
	}
	for _, to := range v.all(paths...) {
		_, query, is := strings.Cut(to, "?")
		if !is || !strings.Contains(query, "_id=") {
			v.t.Fatalf("a new mail leads to %.300q", to)
		}
		resp, err := v.client.Get(v.site.URL("/mail/index.php?" + query))
		if err != nil {
			v.t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(page), `name="_subject"`) {
			lost++
		}
	}
	return n, lost
}

// runPHP runs a script of a package to its end.
func runPHP(t *testing.T, php string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), php, args...).CombinedOutput(); err != nil {
		t.Fatalf("php %s: %v: %.2000s", args[0], err, out)
	}
}
