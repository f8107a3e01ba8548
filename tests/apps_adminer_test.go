package tests

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// installAdminer puts an Adminer into the folder of scripts, with a MariaDB for it. Browsers send its cookie only to its
// script, so the script shows the key of the lock as well.
func installAdminer(t *testing.T, r *rig.Rig) string {
	t.Helper()
	db := rigtest.Start(t, r.MariaDB, rig.MariaDBOptions{SQL: []string{
		"create or replace user visitor@localhost identified by 'secret'", "grant all on *.* to visitor@localhost",
		"create database gated", "create database straight",
	}})
	app := filepath.Join(r.DocRoot, "adminer")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, app+"/index.php", `<?php
if (str_ends_with($_SERVER['REQUEST_URI'], '/gate-key.php')) {
    exit($_SERVER['FPM_GATE_KEY'] ?? '');
}
include '/usr/share/adminer/adminer.php';`)
	return fmt.Sprintf("fastcgi_param PHP_VALUE mysqli.default_socket=%s;", db.Addr.Address) // Adminer 5.2 takes no socket
}

const adminer = "/adminer/index.php"

// loginAdminer logs in, and returns the page for commands to the visitor's database, and the token of its form.
func loginAdminer(v *visitor) (page, token string) {
	v.t.Helper()
	v.get(adminer)
	v.post(adminer, url.Values{
		"auth[driver]": {"server"}, "auth[server]": {"localhost"}, "auth[username]": {"visitor"}, "auth[password]": {"secret"},
		"auth[db]": {v.run()},
	})
	page = adminer + "?" + url.Values{"server": {"localhost"}, "username": {"visitor"}, "db": {v.run()}, "sql": {""}}.Encode()
	form := adminerToken.FindStringSubmatch(v.get(page))
	if form == nil {
		v.t.Fatal("the page for commands has no token")
	}
	return page, form[1]
}

var adminerToken = regexp.MustCompile(`name=['"]token['"] value=['"]([^'"]+)`)

// beginAdminer logs in.
func beginAdminer(v *visitor) (page string) {
	v.t.Helper()
	loginAdminer(v)
	return adminer + "/gate-key.php"
}

// runStatements runs statements at once, each of which the session should remember.
func runStatements(v *visitor) (updates, lost int) {
	const n = 8
	page, token := loginAdminer(v)
	statement := func(i int) string { return fmt.Sprintf("select %d", 70001+i) }
	v.atOnce(n, func(part *visitor, i int) {
		part.wants(part.post(page, url.Values{"query": {statement(i)}, "limit": {""}, "token": {token}}), statement(i))
	})
	history := v.get(page)
	for i := range n {
		if !strings.Contains(history, statement(i)) {
			lost++
		}
	}
	return n, lost
}

// installPHPLDAPadmin puts a phpLDAPadmin into the folder of scripts. It has no LDAP server, and its visitors do not log in.
func installPHPLDAPadmin(t *testing.T, r *rig.Rig) string {
	t.Helper()
	app := filepath.Join(r.DocRoot, "pla")
	copyFolder(t, "/usr/share/phpldapadmin", app, "config", "templates", "hooks", "doc", "locale", "tools")
	if err := os.Mkdir(app+"/config", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, app+"/config/config.php", `<?php
$servers = new Datastore();
$servers->newServer('ldap_pla');
$servers->setValue('server', 'name', 'None');
$servers->setValue('login', 'auth_type', 'session');`)
	showKeys(t, app+"/htdocs")
	return ""
}

// beginPHPLDAPadmin opens the first page.
func beginPHPLDAPadmin(v *visitor) (page string) {
	v.t.Helper()
	v.wants(v.get("/pla/htdocs/index.php"), "phpLDAPadmin")
	return "/pla/htdocs/gate-key.php"
}
