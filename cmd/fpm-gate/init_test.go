package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/config"
)

// system writes the files of a system below a folder, which it returns.
func system(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// runInit runs init on a system and returns the config and what it prints, without the names of the system's folder.
func runInit(t *testing.T, root string, o initOptions) (text, messages string) {
	t.Helper()
	o.root, o.print = root, true
	var out, err strings.Builder
	if e := initialize(o, strings.NewReader(""), &out, &err); e != nil {
		t.Fatalf("init: %v\n%s", e, err.String())
	}
	return strings.ReplaceAll(out.String(), root, ""), strings.ReplaceAll(err.String(), root, "")
}

// parsed reads a config that init has made.
func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	t.Setenv("APP_KEY", "0123456789abcdef")
	c, err := config.Parse([]byte(text), "init")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return c
}

// inOrder looks for texts that must be in another one, one after the other.
func inOrder(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("there is no %q, or too early, in\n%s", part, text)
		}
		rest = after
	}
}

// wants compares texts that must be in another one.
func wants(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: there is no %q in\n%s", what, part, text)
		}
	}
}

const debianPool = `[www]
user = www-data
listen = /run/php/php8.2-fpm.sock
listen.group = www-data
pm.max_children = 5
;pm.status_path = /status
ping.path = /ping
`

const nginxConf = `http {
	include mime.types;
	include /etc/nginx/sites-enabled/*;
}
`

// TestInitOfAFreshDebian finds what packages have installed, and needs no edit.
func TestInitOfAFreshDebian(t *testing.T) {
	const site = `server {
	root /var/www/html; # "quoted {
	location ~ \.php$ {
		include snippets/fastcgi-php.conf;
		fastcgi_pass unix:/run/php/php8.2-fpm.sock;
	}
}
`
	for name, c := range map[string]struct {
		files  map[string]string
		diff   []string
		reload string
	}{
		"nginx": {map[string]string{
			"etc/nginx/nginx.conf":                   nginxConf,
			"etc/nginx/sites-enabled/default":        site,
			"etc/nginx/snippets/fastcgi-php.conf":    "fastcgi_index index.php;\n",
			"usr/lib/systemd/system/fpm-gate.socket": "",
		}, []string{
			"--- /etc/nginx/sites-enabled/default\n+++ /etc/nginx/sites-enabled/default\n@@ -2,6 +2,6 @@\n",
			"-\t\tfastcgi_pass unix:/run/php/php8.2-fpm.sock;\n+\t\tfastcgi_pass unix:/run/fpm-gate/www.sock;\n",
		}, "nginx -t && systemctl reload nginx"},
		"apache": {map[string]string{
			"etc/apache2/apache2.conf": "# empty\n",
			"etc/apache2/conf-enabled/php8.2-fpm.conf": "<FilesMatch \".+\\.php$\">\n" +
				"    SetHandler \"proxy:unix:/run/php/php8.2-fpm.sock|fcgi://localhost\"\n</FilesMatch>\n",
			"etc/apache2/sites-enabled/000-default.conf": "<VirtualHost *:80>\n\tDocumentRoot /var/www/html\n</VirtualHost>\n",
			"usr/lib/systemd/system/fpm-gate.socket":     "",
		}, []string{
			"+    SetHandler \"proxy:unix:/run/fpm-gate/www.sock|fcgi://localhost\"\n",
		}, "apachectl configtest && systemctl reload apache2"},
	} {
		t.Run(name, func(t *testing.T) {
			c.files["etc/php/8.2/fpm/pool.d/www.conf"] = debianPool
			c.files["etc/php/8.2/fpm/php.ini"] = `[PHP]
output_buffering = 4096
[Session]
session.save_handler = files
;session.save_path = "/x"
`
			c.files["var/lib/php/sessions/.keep"] = ""
			text, messages := runInit(t, system(t, c.files), initOptions{file: "/etc/fpm-gate/fpm-gate.hcl"})
			g := parsed(t, text).Gates[0]
			u, s := g.Upstream, g.Session
			if g.Name != "www" || g.Listen.String() != "systemd:www" || g.Lock.Observe ||
				u.Addresses[0].Address != "/run/php/php8.2-fpm.sock" ||
				u.MaxConnections != 5 || u.PingPath != "/ping" || u.StatusPath != "" ||
				s.Handler != "files" || s.SavePath != "/var/lib/php/sessions" || s.Cookies[0] != "PHPSESSID" {
				t.Errorf("got %+v\n%s", g, text)
			}
			wants(t, "config", text, "# pm.max_children, /etc/php/8.2/fpm/pool.d/www.conf:5")
			wants(t, "next steps", messages, c.diff...)
			inOrder(t, messages, "fpm-gate init without --print", "fpm-gate check --config /etc/fpm-gate/fpm-gate.hcl --probe",
				"systemctl restart fpm-gate.service", "+++ ", c.reload, "fpm-gate locks --watch")
			if strings.Contains(messages, "note:") {
				t.Errorf("got notes: %s", messages)
			}
		})
	}
}

// TestInitFindsApplications by their files, in the folders of the pool that runs them.
func TestInitFindsApplications(t *testing.T) {
	for _, a := range config.Applications() {
		for _, mark := range a.Marks {
			root := system(t, map[string]string{
				"etc/php/8.2/fpm/pool.d/www.conf": debianPool,
				"etc/nginx/nginx.conf":            nginxConf,
				"etc/nginx/sites-enabled/site": `upstream php { server unix:/run/php/php8.2-fpm.sock; }
server { location ~ \.php$ { fastcgi_pass php; }
 root /srv/app/public; }
server { root /srv/other; fastcgi_pass 127.0.0.1:9000; }
`,
				filepath.Join("srv/app/public", mark): "",
				"srv/other/wp-includes/version.php":   "",
			})
			text, messages := runInit(t, root, initOptions{observe: true})
			g := parsed(t, text).Gates[0]
			s := g.Session
			if s.Application != a.Name || !g.Lock.Observe || a.OwnSessions != (s.Handler == config.HandlerAny) {
				t.Errorf("%s, by %s: got application %q, handler %s, observe %v",
					a.Name, mark, s.Application, s.Handler, g.Lock.Observe)
			}
			wants(t, a.Name, messages, "-upstream php { server unix:/run/php/php8.2-fpm.sock; }\n"+
				"+upstream php { server unix:/run/fpm-gate/www.sock; }\n")
			if got := strings.Contains(messages, "Put APP_KEY"); got != (a.Format != "") {
				t.Errorf("%s: asks for a key: %v\n%s", a.Name, got, messages)
			} else if got {
				inOrder(t, messages, "Put APP_KEY", "(set -a; . /etc/fpm-gate/fpm-gate.env; fpm-gate check --config")
			}
		}
	}
}

func TestInitReadsThePoolsOfAMachine(t *testing.T) {
	root := system(t, map[string]string{
		"etc/php/8.2/fpm/pool.d/shop.conf": `[shop]
listen = /run/php/$pool.sock
pm.max_children = 20
pm.status_path = /st
php_admin_value[session.save_handler] = redis
php_admin_value[session.name] = "shop_sid"
php_admin_flag[redis.session.locking_enabled] = on
`,
		"etc/php/8.2/fpm/pool.d/two.conf": "[api 1]\nlisten = 9001\npm.max_children = many\n" +
			"[blog]\nlisten = 127.0.0.1:9002\n",
		"etc/php/8.2/fpm/php.ini": "session.save_handler = files\nmax_input_vars = 5000\nsession.use_only_cookies = 0\n",
		"etc/php/8.2/fpm/conf.d/20-x.ini": "session.save_handler = memcached\n" +
			"session.save_path = \"10.0.0.1:11211\"\nmemcached.sess_prefix = x.\n",
		"etc/nginx/nginx.conf": nginxConf,
		"etc/nginx/sites-enabled/a": `server {
 root /srv/blog; location / { try_files $uri /index.php$is_args$args; }
 location ~ \.php {
 fastcgi_pass localhost:9002;
 }
 location /x { alias /srv/wp; fastcgi_pass $backend; }
}
server { root /srv/shop; location ~ "^/a{2}" { fastcgi_pass unix:/run/php/shop.sock; } }
`,
		"srv/blog/wp-includes/version.php":                        "",
		"srv/blog/wp-content/plugins/woocommerce/woocommerce.php": "",
		"srv/wp/core/lib/Drupal.php":                              "",
	})
	text, messages := runInit(t, root, initOptions{})
	c := parsed(t, text)
	if len(c.Gates) != 3 {
		t.Fatalf("got %d gates\n%s", len(c.Gates), text)
	}
	shop, api, blog := c.Gates[0], c.Gates[1], c.Gates[2]
	if s := shop.Session; shop.Listen.String() != "unix:/run/fpm-gate/shop.sock" ||
		shop.Upstream.Addresses[0].Address != "/run/php/shop.sock" || shop.Upstream.StatusPath != "/st" ||
		!s.Locks || s.Handler != config.HandlerAny || s.MaxInputVars != 5000 || s.Query[0] != "shop_sid" {
		t.Errorf("shop: got %+v", shop)
	}
	if s, u := api.Session, api.Upstream; api.Name != "api-1" ||
		u.Addresses[0].Address != "127.0.0.1:9001" || u.MaxConnections != 0 ||
		s.Handler != config.HandlerMemcached || s.KeyPrefix != "x." || s.Servers[0].Address != "10.0.0.1:11211" {
		t.Errorf("api: got %+v", api)
	}
	if blog.Session.Application != "woocommerce" || blog.Session.Handler != config.HandlerAny {
		t.Errorf("blog: got %+v", blog.Session)
	}
	wants(t, "config", text, "drupal was found, too, in /srv/wp")
	wants(t, "messages", messages, "note: /etc/nginx/sites-enabled/a:6: fastcgi_pass depends on a variable",
		"- fastcgi_pass localhost:9002;\n+ fastcgi_pass unix:/run/fpm-gate/blog.sock;\n")
}

func TestInitTellsWhatItCannotRead(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("root may read all: only php.ini with errors is tested")
	}
	root := system(t, map[string]string{
		"etc/php/8.2/fpm/pool.d/www.conf": debianPool,
		"etc/php/8.2/fpm/php.ini": `[PHP]
; a comment
engine = On ; yes
x = "a;b"
extension=redis
flag
a tops3cret line without a key
session.name = "open
error_reporting = E_ALL & ~E_DEPRECATED
y = 'z'
arg = "a=href,b=c"
`,
		"etc/php/8.2/fpm/pool.d/secret.conf": "[secret]\nlisten = 9009\n",
	})
	if err := os.Chmod(filepath.Join(root, "etc/php/8.2/fpm/pool.d/secret.conf"), 0); err != nil {
		t.Fatal(err)
	}
	_, messages := runInit(t, root, initOptions{})
	wants(t, "messages", messages, "php.ini:7: not a line", "php.ini:8: not a line")
	if n := strings.Count(messages, "not a line"); n != 2 || strings.Contains(messages, "tops3cret") {
		t.Errorf("got %d lines, want 2 without their text:\n%s", n, messages)
	}
	if os.Geteuid() != 0 {
		wants(t, "messages", messages, "cannot read /etc/php/8.2/fpm/pool.d/secret.conf: permission denied; run init as root")
	}
}

func TestInitOfAMachineWithoutPHP(t *testing.T) {
	var out, messages strings.Builder
	err := initialize(initOptions{root: t.TempDir(), print: true}, strings.NewReader(""), &out, &messages)
	if err == nil || !strings.Contains(err.Error(), "found no PHP-FPM pool in") || out.Len() > 0 {
		t.Errorf("got error %v and %q", err, out.String())
	}
}

// TestInitAsksBeforeItReplacesAConfig, and keeps the old one.
func TestInitAsksBeforeItReplacesAConfig(t *testing.T) {
	root := system(t, map[string]string{"etc/php/8.2/fpm/pool.d/www.conf": debianPool})
	file := filepath.Join(t.TempDir(), "new", "fpm-gate.hcl")
	o := initOptions{root: root, file: file}
	try := func(answer string) (text string, err error) {
		var out, messages strings.Builder
		err = initialize(o, strings.NewReader(answer), &out, &messages)
		written, _ := os.ReadFile(file)
		return string(written), err
	}
	if text, err := try(""); err != nil || !strings.Contains(text, "gate \"www\"") {
		t.Fatalf("a new file: got error %v and %q", err, text)
	}
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, answer := range []string{"", "n\n", "\n", "never\n"} {
		if text, err := try(answer); err == nil || text != "mine" {
			t.Errorf("answer %q: got error %v and %q", answer, err, text)
		}
	}
	text, err := try("y\n")
	old, _ := os.ReadFile(file + ".old")
	if err != nil || !strings.Contains(text, "gate \"www\"") || string(old) != "mine" {
		t.Errorf("answer y: got error %v, %q and of old %q", err, text, old)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, want that of before", info.Mode())
	}
	if os.Geteuid() == 0 { // as a file with a secret belongs to the service
		const owner = 65534
		if err := os.Chown(file, owner, owner); err != nil {
			t.Fatal(err)
		}
		if _, err := try("yes\n"); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if of := info.Sys().(*syscall.Stat_t); of.Uid != owner || of.Gid != owner {
			t.Errorf("got the owner %d:%d, want that of before", of.Uid, of.Gid)
		}
	}
	if left, _ := filepath.Glob(file + ".new"); len(left) > 0 {
		t.Errorf("got the files %v, want none left over", left)
	}
}

// TestDiffsApply changes many lines of a file, near each other and far apart, and applies the diff by hand.
func TestDiffsApply(t *testing.T) {
	for _, change := range [][]int{{1}, {30}, {1, 2, 3}, {5, 9}, {5, 12}, {5, 13}, {1, 15, 30}, {28, 30}} {
		var lines []string
		for n := range 30 {
			lines = append(lines, fmt.Sprint("line ", n+1))
		}
		file := filepath.Join(t.TempDir(), "conf")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		changed := map[int]string{}
		for _, n := range change {
			changed[n] = fmt.Sprint("changed ", n)
		}
		var b strings.Builder
		writeDiff(&b, file, changed)
		got := patched(t, lines, b.String())
		for n, line := range lines {
			want := line
			if text, is := changed[n+1]; is {
				want = text
			}
			if got[n] != want {
				t.Errorf("%v: line %d: got %q, want %q\n%s", change, n+1, got[n], want, b.String())
			}
		}
	}
}

var hunkHead = regexp.MustCompile(`^@@ -(\d+),(\d+) \+(\d+),(\d+) @@$`)

// patched applies a diff that changes no number of lines, and checks its context.
func patched(t *testing.T, lines []string, diff string) []string {
	t.Helper()
	out := append([]string(nil), lines...)
	n, left := 0, 0
	for i, line := range strings.Split(strings.TrimSuffix(diff, "\n"), "\n") {
		var length int
		switch {
		case i < 2:
		case hunkHead.MatchString(line):
			if left != 0 {
				t.Errorf("a hunk has %d lines too few", left)
			}
			_, _ = fmt.Sscanf(line, "@@ -%d,%d", &n, &length)
			left = length
		case line[0] == ' ' || line[0] == '-':
			if out[n-1] != line[1:] {
				t.Errorf("line %d: the diff has %q", n, line)
			}
			if line[0] == ' ' {
				n, left = n+1, left-1
			}
		case line[0] == '+':
			out[n-1] = line[1:]
			n, left = n+1, left-1
		}
	}
	if left != 0 {
		t.Errorf("the last hunk has %d lines too few", left)
	}
	return out
}

// TestInitGivesEachPoolAGateOfItsOwn where the names of pools are the same, or become so.
func TestInitGivesEachPoolAGateOfItsOwn(t *testing.T) {
	const unit = "usr/lib/systemd/system/fpm-gate.socket"
	long := strings.Repeat("x", 70)
	for name, c := range map[string]struct {
		pools string // of PHP 8.2
		later string // of PHP 8.4
		unit  bool
		want  string // the gates and their sockets
	}{
		"no pool like another":          {"blog shop", "", false, "blog:blog shop:shop"},
		"two versions of PHP":           {"www", "www", false, "www:www www-8.4:www-8.4"},
		"two versions, and the unit":    {"www", "www", true, "www:systemd www-8.4:www-8.4"},
		"two of each":                   {"www shop", "www shop", true, "www:systemd shop:shop www-8.4:www-8.4 shop-8.4:shop-8.4"},
		"the unit is another pool's":    {"blog www", "", true, "blog:systemd www-8.2:www-8.2"},
		"names that become the same":    {"a@b a+b a*b", "", false, "a-b:a-b a-b-8.2:a-b-8.2 a-b-2:a-b-2"},
		"a name that one has become":    {"a@b a+b a-b-8.2", "", false, "a-b:a-b a-b-8.2:a-b-8.2 a-b-8.2-8.2:a-b-8.2-8.2"},
		"names that are cut":            {long + "1 " + long + "2", "", false, long[:64] + ":" + long[:64] + " " + long[:60] + "-8.2:" + long[:60] + "-8.2"},
		"a name with nothing to keep":   {"é", "", false, "-:-"},
		"one that is defined two times": {"www", "www www", false, "www:www www-8.4:www-8.4"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			for version, pools := range map[string]string{"8.2": c.pools, "8.4": c.later} {
				for i, pool := range strings.Fields(pools) {
					files["etc/php/"+version+"/fpm/pool.d/"+fmt.Sprint(i)+".conf"] = fmt.Sprintf("[%s]\nlisten = /run/php/%s-%d.sock\n", pool, version, i)
				}
			}
			if c.unit {
				files[unit] = ""
			}
			text, _ := runInit(t, system(t, files), initOptions{})
			var got []string
			for _, g := range parsed(t, text).Gates {
				socket := strings.TrimSuffix(filepath.Base(g.Listen.Address), ".sock")
				if g.Listen.Network == "systemd" {
					socket = "systemd"
				}
				got = append(got, g.Name+":"+socket)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
