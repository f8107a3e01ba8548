package tests

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestApplicationsNoticeNothing has a visitor of DokuWiki and one of phpMyAdmin, as Debian has them, log in, browse,
// upload and log out: with the gate and without it they get the same.
func TestApplicationsNoticeNothing(t *testing.T) {
	onEachHandler(t, func(t *testing.T, handler string) {
		rigtest.Need(t, "dokuwiki", "phpmyadmin", "mariadbd")
		s := newWatchedStack(t, handler, `cookies = ["DokuWiki", "phpMyAdmin"]`, stackOptions{
			PHP:  rig.PHPOptions{Workers: 6, AllExtensions: true},
			Gate: rig.GateOptions{Settings: "lock { server_timing = true }"},
			Site: rig.Site{Settings: "fastcgi_param RUN gated;"},
		})
		straight := &rig.Site{FastCGI: s.PHP.Addr, Settings: "fastcgi_param RUN straight;"}
		rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{straight}})
		for name, app := range map[string]struct {
			install func(*testing.T, *rig.Rig)
			visit   func(*visitor)
		}{
			"DokuWiki":   {installDokuWiki, visitDokuWiki},
			"phpMyAdmin": {installPHPMyAdmin, visitPHPMyAdmin},
		} {
			t.Run(name, func(t *testing.T) {
				app.install(t, s.Rig)
				without, with := newVisitor(t, straight), newVisitor(t, s.Site)
				app.visit(without)
				app.visit(with)
				if len(with.seen) != len(without.seen) {
					t.Fatalf("with the gate there were %d answers, without it %d", len(with.seen), len(without.seen))
				}
				for i, want := range without.seen {
					if got := with.seen[i]; got != want {
						t.Errorf("answer %d differs with the gate: %s", i+1, difference(got, want))
					}
				}
				if with.locked < len(with.seen)/2 || without.locked > 0 {
					t.Errorf("of %d answers, %d came under a lock with the gate, and %d without it", len(with.seen), with.locked, without.locked)
				}
			})
		}
	})
}

// visitor is a browser without scripts, that notes what it sees.
type visitor struct {
	t      *testing.T
	site   *rig.Site
	client *http.Client
	seen   []string // without what differs from visit to visit
	locked int      // answers that the gate had a lock for
	most   int      // requests at once, if not all
}

func newVisitor(t *testing.T, site *rig.Site) *visitor {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	own := *client
	own.Jar = jar
	return &visitor{t: t, site: site, client: &own}
}

// get asks for a page.
func (v *visitor) get(path string) string {
	v.t.Helper()
	return v.do(http.MethodGet, path, "", nil)
}

// post sends a form, and returns where its answer leads to, or else what it says.
func (v *visitor) post(path string, form url.Values) string {
	v.t.Helper()
	return v.do(http.MethodPost, path, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
}

// upload sends a form with a file in it.
func (v *visitor) upload(path string, form url.Values, field, name, content string) string {
	v.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for name := range form {
		_ = w.WriteField(name, form.Get(name))
	}
	file, err := w.CreateFormFile(field, name)
	if err != nil {
		v.t.Fatal(err)
	}
	_, _ = io.WriteString(file, content)
	_ = w.Close()
	return v.do(http.MethodPost, path, w.FormDataContentType(), &body)
}

// follow goes where an answer leads to.
func (v *visitor) follow(location string) string {
	v.t.Helper()
	u, err := url.Parse(location)
	if err != nil || u.Path == "" {
		v.t.Fatalf("got %.300q, want an answer that leads elsewhere", location)
	}
	return v.get(cmp.Or(u.RequestURI(), location))
}

// together asks for pages at once, as a browser does.
func (v *visitor) together(paths ...string) {
	v.t.Helper()
	parts := make([]*visitor, len(paths))
	var all sync.WaitGroup
	for i, path := range paths {
		parts[i] = &visitor{t: v.t, site: v.site, client: v.client}
		all.Go(func() { parts[i].get(path) })
	}
	all.Wait()
	for _, part := range parts {
		v.seen = append(v.seen, part.seen...)
		v.locked += part.locked
	}
}

func (v *visitor) do(method, path, contentType string, body io.Reader) string {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.site.URL(path), body)
	if err != nil {
		v.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := v.client.Do(r)
	if err != nil {
		v.t.Errorf("%s %s: %v", method, path, err)
		return ""
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Errorf("%s %s: %v", method, path, err)
	}
	if strings.Contains(resp.Header.Get("Server-Timing"), "session lock held") {
		v.locked++
	}
	location := resp.Header.Get("Location")
	seen := fmt.Sprintf("%s %s: status %d, to %q\n%s", method, path, resp.StatusCode, location, page)
	v.seen = append(v.seen, v.plain(seen))
	if resp.StatusCode >= 400 {
		v.t.Errorf("%s %s: got status %d and %.300q", method, path, resp.StatusCode, page)
	}
	return cmp.Or(location, string(page))
}

// passing is what differs from visit to visit: tokens, hashes, times, sizes, and the ids that phpMyAdmin gives a form,
// which end in a number and may look like a hash.
var passing = regexp.MustCompile(`geoOptionRadio[A-Za-z]+[0-9]+|\b[0-9a-v]{26,32}\b|[0-9a-f]{8,}|[A-Za-z0-9+/=%]{40,}|[0-9][0-9:./, -]*[0-9]|\b[0-9]\b`)

// compiling is what phpMyAdmin's Twig reports while it compiles a template, to whichever visitor is the first to need it.
var compiling = regexp.MustCompile(`<div class="alert [^>]*>\s*<img [^>]*>\s*Since twig/[^<]*</div>`)

// plain takes out of a text what differs from visit to visit, and from site to site.
func (v *visitor) plain(text string) string {
	run := v.run()
	text = strings.NewReplacer(
		v.site.Listen.Address, "SITE",
		url.QueryEscape(v.site.Listen.Address), "SITE",
		base64.StdEncoding.EncodeToString([]byte(run)), "RUN",
		run, "RUN",
		strings.ToUpper(run), "RUN",
	).Replace(text)
	return passing.ReplaceAllString(compiling.ReplaceAllString(text, ""), "#")
}

// run is what the site calls itself, and what it has a data folder or a database for.
func (v *visitor) run() string {
	_, run, _ := strings.Cut(strings.TrimSuffix(v.site.Settings, ";"), " RUN ")
	return run
}

// wants fails the test unless a page has a text in it.
func (v *visitor) wants(page, text string) {
	v.t.Helper()
	if !strings.Contains(page, text) {
		v.t.Fatalf("%s: there is no %q in %.600q", v.run(), text, page)
	}
}

// hidden are the fields of a page's forms that no visitor sees.
func hidden(page string) url.Values {
	form := url.Values{}
	for _, input := range inputTag.FindAllString(page, -1) {
		name, value := inputName.FindStringSubmatch(input), inputValue.FindStringSubmatch(input)
		if name != nil && value != nil && strings.Contains(input, `type="hidden"`) {
			form.Set(name[1], html.UnescapeString(value[1]))
		}
	}
	return form
}

var (
	inputTag   = regexp.MustCompile(`<input [^>]*>`)
	inputName  = regexp.MustCompile(` name="([^"]*)"`)
	inputValue = regexp.MustCompile(` value="([^"]*)"`)
)

// difference shows where two texts begin to differ.
func difference(got, want string) string {
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	from := max(0, i-80)
	return fmt.Sprintf("got …%q, want …%q", got[from:min(len(got), i+120)], want[from:min(len(want), i+120)])
}

// installDokuWiki puts a DokuWiki into the folder of scripts, with data of its own for each run.
func installDokuWiki(t *testing.T, r *rig.Rig) {
	t.Helper()
	app := filepath.Join(r.DocRoot, "wiki")
	copyFolder(t, "/usr/share/dokuwiki", app)
	copyFolder(t, "/etc/dokuwiki", app+"/conf", "acl.auth.php", "users.auth.php")
	data := t.TempDir()
	for _, run := range []string{"gated", "straight"} {
		for _, dir := range strings.Fields("attic cache index locks log media media_attic media_meta meta pages tmp") {
			if err := os.MkdirAll(filepath.Join(data, run, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, app+"/inc/preload.php", `<?php
define('DOKU_CONF', dirname(__DIR__) . '/conf/');
define('DOKU_MAIN_CONF', DOKU_CONF);`)
	write(t, app+"/conf/local.php", `<?php
$conf['title'] = 'Wiki';
$conf['useacl'] = 1;
$conf['updatecheck'] = 0;
$conf['savedir'] = '`+data+`/' . $_SERVER['RUN'];`)
	// The password is "secret", in a hash that costs nothing to check.
	write(t, app+"/conf/users.auth.php", "visitor:$1$abcdefgh$"+md5Crypt(t, "secret", "abcdefgh")+":A Visitor:visitor@example.org:user\n")
	write(t, app+"/conf/acl.auth.php", "*\t@ALL\t8\n")
}

// md5Crypt hashes a password as PHP does.
func md5Crypt(t *testing.T, password, salt string) string {
	t.Helper()
	rigtest.Need(t, "php")
	php, err := rig.Find("php")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(php, "-r", `echo crypt($argv[1], '$1$'.$argv[2].'$');`, password, salt).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(string(out), "$1$"+salt+"$")
}

// copyFolder copies what a folder has in it and what its links lead to, but for some names.
func copyFolder(t *testing.T, from, to string, without ...string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-RL"}
entries:
	for _, e := range entries {
		for _, name := range without {
			if e.Name() == name {
				continue entries
			}
		}
		args = append(args, filepath.Join(from, e.Name()))
	}
	if out, err := exec.Command("cp", append(args, to)...).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func visitDokuWiki(v *visitor) {
	v.t.Helper()
	const start = "/wiki/doku.php?id=start"
	v.wants(v.get(start), "<title>start [Wiki]</title>")
	form := hidden(v.get(start + "&do=login"))
	form.Set("u", "visitor")
	form.Set("p", "secret")
	form.Set("do", "login")
	page := v.follow(v.post(start, form))
	v.wants(page, "A Visitor")

	form = hidden(v.get(start + "&do=edit"))
	// The file first: the page that is made with it is kept.
	token := url.Values{"sectok": {form.Get("sectok")}, "call": {"mediaupload"}, "ns": {""}, "mediaid": {"note.zip"}}
	v.wants(v.upload("/wiki/lib/exe/ajax.php", token, "qqfile", "note.zip", "no archive, but a file\n"), `"success":true`)
	nextSecond() // DokuWiki counts in seconds, and lists what is of the same one in another order.
	form.Set("wikitext", "====== A page ======\nby a visitor, with {{:note.zip|a file}}\n")
	form.Set("summary", "made")
	form.Set("do[save]", "1")
	v.wants(v.follow(v.post(start, form)), "by a visitor")
	// What it caches of a page in the second of its change it makes again, and of requests that come together one may
	// read half of what another writes.
	nextSecond()
	v.wants(v.get(start), "by a visitor")
	v.wants(v.get("/wiki/lib/exe/fetch.php?media=note.zip"), "but a file")
	v.together(start+"&do=revisions", start+"&do=index", start+"&do=recent", start+"&do=media", start, "/wiki/lib/exe/css.php")
	page = v.get(start + "&do=profile")
	v.wants(page, "visitor@example.org")
	page = v.get(start + "&do=logout&sectok=" + hidden(page).Get("sectok"))
	if strings.HasPrefix(page, "http") || strings.HasPrefix(page, "/") {
		page = v.follow(page)
	}
	if strings.Contains(page, "A Visitor") {
		v.t.Error("logged in still")
	}
}

func nextSecond() {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(1010 * time.Millisecond)))
}

// installPHPMyAdmin puts a phpMyAdmin into the folder of scripts, with a MariaDB behind it.
func installPHPMyAdmin(t *testing.T, r *rig.Rig) {
	t.Helper()
	var sql []string
	sql = append(sql, "create or replace user visitor@localhost identified by 'secret'", "grant all on *.* to visitor@localhost")
	for _, run := range []string{"gated", "straight"} {
		sql = append(sql, "create database "+run, "create table "+run+".goods (id int primary key, name varchar(40))",
			"insert into "+run+".goods values (1, 'apples'), (2, 'pears')")
	}
	db := rigtest.Start(t, r.MariaDB, rig.MariaDBOptions{SQL: sql})
	app := filepath.Join(r.DocRoot, "pma")
	copyFolder(t, "/usr/share/phpmyadmin", app, "doc", "js", "locale")
	if err := os.Mkdir(app+"/tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	vendor := app + "/libraries/vendor_config.php"
	text, err := os.ReadFile(vendor)
	if err != nil {
		t.Fatal(err)
	}
	write(t, vendor, strings.NewReplacer(
		`'/etc/phpmyadmin/config.inc.php'`, `ROOT_PATH . 'config.inc.php'`,
		`'/var/lib/phpmyadmin/tmp/'`, `ROOT_PATH . 'tmp/'`).Replace(string(text)))
	write(t, app+"/config.inc.php", fmt.Sprintf(`<?php
$cfg['blowfish_secret'] = str_repeat('0123456789abcdef', 2);
$cfg['SendErrorReports'] = 'never';
$cfg['Servers'][1] = ['auth_type' => 'cookie', 'host' => 'localhost', 'socket' => '%s', 'only_db' => [$_SERVER['RUN']]];`, db.Addr.Address))
}

func visitPHPMyAdmin(v *visitor) {
	v.t.Helper()
	page := func(route string) string { return "/pma/index.php?route=" + route }
	db := v.run()
	form := hidden(v.get("/pma/index.php"))
	form.Set("pma_username", "visitor")
	form.Set("pma_password", "secret")
	home := v.follow(v.post(page("/"), form))
	v.wants(home, "visitor@localhost")
	token := hidden(home).Get("token")

	v.wants(v.get(page("/database/structure&db="+db)), "goods")
	v.wants(v.get(page("/sql&pos=0&db="+db+"&table=goods")), "pears")
	v.together(page("/server/databases"), page("/database/search&db="+db), page("/database/sql&db="+db),
		page("/database/export&db="+db), page("/server/variables"))
	form = hidden(v.get(page("/database/import&db=" + db)))
	form.Set("ajax_request", "1")
	form.Set("format", "sql")
	v.upload(page("/import"), form, "import_file", "more.sql", "insert into goods values (3, 'cherries');\n")
	v.wants(v.get(page("/sql&pos=0&db="+db+"&table=goods")), "cherries")
	v.post(page("/logout"), url.Values{"token": {token}})
	v.wants(v.get("/pma/index.php"), "pma_password")
}
