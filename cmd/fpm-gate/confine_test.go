package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
)

// made makes files below a folder, with theirs.
func made(t *testing.T, top string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRulesFor(t *testing.T) {
	top := t.TempDir()
	made(t, top, "conf/fpm-gate.hcl", "secret/one", "archive/cert.pem", "live/key.pem", "run/x", "credentials/x", "runtime/x")
	if err := os.Symlink("../archive/cert.pem", filepath.Join(top, "live/cert.pem")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(top, "credentials"))
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(top, "runtime")+":/nowhere")
	const (
		read  = landlock.ReadFiles
		list  = landlock.ReadFiles | landlock.ListFolders
		socks = landlock.MakeSockets
	)
	own := map[string]landlock.Access{"/proc": list, "/etc/passwd": read, "/etc/group": read, "conf": read, "credentials": read, "runtime": socks | landlock.KeepFiles}
	gate := func(listen, more string) string {
		return `gate "www" {
			listen = "` + listen + `"
			upstream { address = "unix:/run/php/php-fpm.sock" }
			` + more + `
		}
		`
	}
	const store = "lock { store = \"memcached\" }"
	for name, c := range map[string]struct {
		config string
		more   map[string]landlock.Access
	}{
		"a socket from systemd": {gate("systemd:www", ""), nil},
		"a socket of its own":   {gate("unix:TOP/run/www.sock", ""), map[string]landlock.Access{"run": socks}},
		"the admin's socket":    {gate("systemd:www", "") + `admin { listen = "unix:TOP/run/a.sock" }`, map[string]landlock.Access{"run": socks}},
		"addresses":             {gate("127.0.0.1:9001", "") + `admin { listen = "[::1]:9002" }`, nil},
		"a group by its name":   {gate("systemd:www", `listen_group = "root"`), nil},
		"a secret from a file": {gate("systemd:www", store) + "memcached {\nservers = [\"127.0.0.1:1\"]\nsecret = file(\"TOP/secret/one\")\n}",
			map[string]landlock.Access{"secret": read}},
		"a host": {gate("systemd:www", store) + "memcached {\nservers = [\"cache:1\"]\n}", map[string]landlock.Access{"/etc": read}},
		"TLS, through a link": {gate("systemd:www", store) + "memcached {\nservers = [\"127.0.0.1:1\"]\ntls {\nca = \"TOP/secret/one\"\n" +
			"cert = \"TOP/live/cert.pem\"\nkey = \"TOP/live/key.pem\"\n}\n}",
			map[string]landlock.Access{"secret": read, "archive": read, "live": read}},
	} {
		parsed, err := config.Parse([]byte(strings.ReplaceAll(c.config, "TOP", top)), "test")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := make(map[string]landlock.Access)
		for _, rules := range []map[string]landlock.Access{own, c.more} {
			for path, access := range rules {
				if !filepath.IsAbs(path) {
					path = filepath.Join(top, path)
				}
				want[path] |= access
			}
		}
		got := make(map[string]landlock.Access)
		for _, r := range rulesFor(filepath.Join(top, "conf/fpm-gate.hcl"), parsed) {
			if !slices.Contains(nameFolders[1:], r.Path) {
				got[r.Path] |= r.Access
			}
		}
		for path := range got {
			if got[path] != want[path] {
				t.Errorf("%s: got access %x of %s, want %x", name, got[path], path, want[path])
			}
		}
		for path := range want {
			if got[path] == 0 {
				t.Errorf("%s: got no access of %s, want %x", name, path, want[path])
			}
		}
	}
}

// The system's CAs are needed only where the config names none.
func TestRulesForTheCAsOfTheSystem(t *testing.T) {
	top := t.TempDir()
	made(t, top, "ca.pem")
	t.Setenv("SSL_CERT_FILE", filepath.Join(top, "ca.pem"))
	c := &config.Config{Memcached: &config.Memcached{TLS: &config.TLS{}}}
	needed := landlock.Rules{{Path: top, Access: landlock.ReadFiles}}
	if beyond := rulesFor("", c).Beyond(needed); beyond != nil {
		t.Errorf("the system's CAs are out of reach: %v", beyond)
	}
	c.Memcached.TLS.CA = "/nowhere/ca.pem"
	if rulesFor("", c).Beyond(needed) == nil {
		t.Error("the system's CAs are within reach, though the config has its own")
	}
}

// A file at the top must not bring all others within reach.
func TestAFileInTheRootFolderIsAloneWithinReach(t *testing.T) {
	var rules landlock.Rules
	allowFile(&rules, "/.no-such-file")
	allowFile(&rules, "")
	if len(rules) > 0 {
		t.Errorf("got %v, want none", rules)
	}
	allowFile(&rules, "/proc")
	if len(rules) != 1 || rules[0].Path != "/proc" {
		t.Errorf("got %v, want the file only", rules)
	}
}
