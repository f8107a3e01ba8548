package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

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
		"phpMyAdmin, Redis": {[]string{"phpmyadmin", "mariadbd", "redis-server", "php-redis"}, `application = "phpmyadmin"`,
			func(t *testing.T, r *rig.Rig) string {
				installPHPMyAdmin(t, r)
				return ""
			}, redisSessions, false, viewTables},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, append(app.programs, "nginx", "php-fpm")...)
			params := app.setUp(t, r)
			o := rig.PHPOptions{Workers: 8}
			if app.ini != nil {
				o.INI = app.ini(t, r)
			}
			php := rigtest.Start(t, r.PHPFPM, o)
			gate := startGate(t, r, rig.GateOptions{
				Upstream: php.Addr, Settings: "session {\n" + app.session + "\n}\nlock { server_timing = true }",
			})
			gated := &rig.Site{FastCGI: gate.Addr, Settings: params + "fastcgi_param RUN gated;"}
			straight := &rig.Site{FastCGI: php.Addr, Settings: params + "fastcgi_param RUN straight;"}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{gated, straight}})
			with, without := newVisitor(t, gated), newVisitor(t, straight)
			n, lost := app.burst(without)
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
			t.Logf("lost without the gate: %d of %d; with it: %d of %d", lost, n, lostWith, m)
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
	parts, texts := make([]*visitor, len(paths)), make([]string, len(paths))
	var done sync.WaitGroup
	for i, path := range paths {
		parts[i] = &visitor{t: v.t, site: v.site, client: v.client}
		done.Go(func() { texts[i] = parts[i].get(path) })
	}
	done.Wait()
	for _, part := range parts {
		v.locked += part.locked
	}
	return texts
}

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

// runPHP runs a script of a package to its end.
func runPHP(t *testing.T, php string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), php, args...).CombinedOutput(); err != nil {
		t.Fatalf("php %s: %v: %.2000s", args[0], err, out)
	}
}
