package tests

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// installCacti puts a Cacti into the folder of scripts, with sessions in its database.
func installCacti(t *testing.T, r *rig.Rig) string {
	t.Helper()
	const site = "/usr/share/cacti/site"
	version, err := os.ReadFile(site + "/include/cacti_version")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	db := rigtest.Start(t, r.MariaDB, rig.MariaDBOptions{SQL: append([]string{
		"create or replace user visitor@localhost identified by 'secret'", "grant all on *.* to visitor@localhost",
		"create database cacti character set utf8mb4", "use cacti", "set sql_mode = 'NO_ENGINE_SUBSTITUTION'",
	}, append(cactiTables(t),
		"update version set cacti = '"+strings.TrimSpace(string(version))+"'",
		"update user_auth set must_change_password = '', password_change = '' where username = 'admin'",
		"replace into settings values ('path_cactilog', '"+data+"/cacti.log')",
	)...)})
	app := filepath.Join(r.DocRoot, "cacti")
	copyFolder(t, site, app, "include", "locales", "docs", "cache", "log", "rra", "resource", "images", "CHANGELOG")
	copyFolder(t, site+"/include", app+"/include", "config.php", "fa", "themes", "js", "vendor")
	for _, folder := range []string{"include/themes", "include/vendor", "locales"} {
		if err := os.Symlink(filepath.Join(site, folder), filepath.Join(app, folder)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, app+"/include/config.php", fmt.Sprintf(`<?php
$database_type = 'mysql';
$database_default = 'cacti';
$database_hostname = '%s';
$database_username = 'visitor';
$database_password = 'secret';
$database_port = '3306';
$database_retries = 5;
$poller_id = 1;
$url_path = '/cacti/';
$cacti_session_name = 'Cacti';
$cacti_db_session = true;
$path_csrf_secret = '%s/secret.php';
`, db.Addr.Address, data))
	showKeys(t, app)
	return ""
}

// cactiTables returns the statements that make Cacti's tables, each in one line, with the engine that is fastest at it.
func cactiTables(t *testing.T) (statements []string) {
	t.Helper()
	text, err := os.ReadFile("/usr/share/cacti/conf_templates/cacti.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, tables, _ := strings.Cut(string(text), "SET SESSION sql_mode = @sqlmode;") // stored functions come before it
	tables = strings.ReplaceAll(tables, "ENGINE=InnoDB", "ENGINE=Aria TRANSACTIONAL=0")
	var statement strings.Builder
	for line := range strings.Lines(tables) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "--") {
			continue
		}
		line, end := strings.CutSuffix(line, ";")
		statement.WriteString(line + " ")
		if end {
			statements = append(statements, statement.String())
			statement.Reset()
		}
	}
	return statements
}

// beginCacti logs in.
func beginCacti(v *visitor) (page string) {
	v.t.Helper()
	token := csrfOfCacti.FindStringSubmatch(v.get("/cacti/index.php"))
	if token == nil {
		v.t.Fatal("the page for a login has no token")
	}
	v.wants(v.follow(v.post("/cacti/index.php", url.Values{
		"__csrf_magic": {token[1]}, "action": {"login"}, "login_username": {"admin"}, "login_password": {"admin"},
	})), "Logged in as")
	return "/cacti/gate-key.php"
}

var csrfOfCacti = regexp.MustCompile(`csrfMagicToken='([^']+)'`)

// filterLists opens lists of Cacti at once, each with a filter that the session should remember.
func filterLists(v *visitor) (updates, lost int) {
	beginCacti(v)
	lists := []string{"host", "host_templates", "data_templates", "data_queries", "tree", "sites", "cdef", "color"}
	var paths []string
	for _, list := range lists {
		paths = append(paths, "/cacti/"+list+".php?filter=needle-"+list)
	}
	v.all(paths...)
	for _, list := range lists {
		if !strings.Contains(v.get("/cacti/"+list+".php"), "needle-"+list) {
			lost++
		}
	}
	return len(lists), lost
}

// installIcingaWeb installs an Icinga Web 2 that accepts the user that the web server names.
func installIcingaWeb(t *testing.T, r *rig.Rig) string {
	t.Helper()
	data := t.TempDir()
	write(t, data+"/config.ini", "[global]\nshow_stacktraces = \"1\"\n[cookie]\npath = \"/\"\n[logging]\nlog = \"none\"\n")
	write(t, data+"/authentication.ini", "[autologin]\nbackend = \"external\"\n")
	write(t, data+"/roles.ini", "[all]\nusers = \"*\"\npermissions = \"*\"\n")
	for _, folder := range []string{"storage", "dashboards", "preferences", "enabledModules"} {
		if err := os.Mkdir(filepath.Join(data, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/share/icingaweb2", filepath.Join(r.DocRoot, "icinga")); err != nil {
		t.Fatal(err)
	}
	makeKeys(t, r)
	return fmt.Sprintf("fastcgi_param ICINGAWEB_CONFIGDIR %[1]s; fastcgi_param ICINGAWEB_STORAGEDIR %[1]s/storage;"+
		"fastcgi_param REMOTE_USER visitor;", data)
}

const icinga = "/icinga/public/index.php/"

// beginIcingaWeb opens a page, which begins a session.
func beginIcingaWeb(v *visitor) (page string) {
	v.t.Helper()
	v.wants(v.get(icinga+"about"), "visitor")
	return "/keys/gate-key.php"
}

// addDashlets sends forms for new dashlets of a dashboard at once.
func addDashlets(v *visitor) (updates, lost int) {
	const n = 8
	beginIcingaWeb(v)
	const path = icinga + "dashboard/new-dashlet"
	form := hidden(v.get(path))
	form.Set("formUID", "form_dashboard_addurl")
	form.Set("btn_submit", "Add To Dashboard")
	form.Set("url", "about")
	form.Set("pane", "Mine")
	add := func(v *visitor, title string) {
		own := maps.Clone(form)
		own.Set("dashlet", title)
		if to := v.post(path, own); !strings.Contains(to, "dashboard") {
			v.t.Errorf("a new dashlet leads to %.300q", to)
		}
	}
	add(v, "first")
	titles := make([]string, n)
	v.atOnce(n, func(part *visitor, i int) {
		titles[i] = part.newName()
		add(part, titles[i])
	})
	board := v.get(icinga + "dashboard/settings")
	for _, title := range titles {
		if !strings.Contains(board, title) {
			lost++
		}
	}
	return n, lost
}
