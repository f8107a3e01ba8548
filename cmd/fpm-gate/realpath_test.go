package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// linked is a system like Debian's, with the links that lead to the socket of its pool.
func linked(t *testing.T, address string) (root string) {
	t.Helper()
	root = t.TempDir()
	site := "server {\n  root /var/www/html;\n  location ~ \\.php$ {\n    fastcgi_pass " + address + ";\n  }\n}\n"
	for name, text := range map[string]string{
		"etc/php/8.2/fpm/pool.d/www.conf":      "[www]\nuser = www-data\nlisten = /run/php/php8.2-fpm.sock\npm.max_children = 5\n",
		"etc/php/8.2/fpm/php.ini":              "session.save_handler = files\nsession.save_path = /var/lib/php/sessions\n",
		"etc/nginx/nginx.conf":                 "http {\n  include /etc/nginx/sites-enabled/*;\n}\n",
		"etc/nginx/sites-enabled/default":      site,
		"var/www/html/wp-includes/version.php": "",
		"run/php/.keep":                        "",
		"etc/alternatives/.keep":               "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"run/php/php-fpm.sock":          "/etc/alternatives/php-fpm.sock",
		"etc/alternatives/php-fpm.sock": "/run/php/php8.2-fpm.sock",
		"run/php/relative.sock":         "../php/php8.2-fpm.sock",
		"run/php/loop.sock":             "loop.sock",
		"run/php/other.sock":            "php8.4-fpm.sock",
		"var/run":                       "/run",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A pool is the same one by whatever path the web server or the config names its socket: init finds its sites and their
// applications, and shows the line to change; check compares its settings.
func TestASocketIsKnownByItsLinks(t *testing.T) {
	for address, same := range map[string]bool{
		"unix:/run/php/php8.2-fpm.sock":      true,
		"unix:/run/php/php-fpm.sock":         true, // by /etc/alternatives
		"unix:/run/php/relative.sock":        true,
		"unix:/var/run/php/php8.2-fpm.sock":  true,
		"unix:/var/run/php/php-fpm.sock":     true,
		"unix:/run/php//../php/php-fpm.sock": true,
		"unix:/run/php/other.sock":           false,
		"unix:/run/php/loop.sock":            false,
		"unix:/run/php/missing.sock":         false,
		"127.0.0.1:9000":                     false,
	} {
		t.Run(address, func(t *testing.T) {
			root := linked(t, address)
			m := survey(root)
			diff := webDiff(m.root, m.passes, m.pools)
			changed := strings.Contains(diff, "\n-    fastcgi_pass "+address+";\n+    fastcgi_pass unix:/run/fpm-gate/www.sock;\n")
			if changed != same || same != (diff != "") {
				t.Errorf("got the diff %q, want one that replaces the address: %v", diff, same)
			}
			if found := m.pools[0].has("wordpress"); found != same {
				t.Errorf("an application was found: %v, want %v", found, same)
			}
			network, at, _ := strings.Cut(address, ":")
			if network != "unix" {
				network, at = "tcp", address
			}
			g := &config.Gate{
				Upstream: config.Upstream{Addresses: []netaddr.Addr{{Network: network, Address: at}}},
				Session:  config.Session{Handler: config.HandlerMemcached},
			}
			if got := differences(g, root); same != (len(got) == 1) {
				t.Errorf("got the differences %q, want one: %v", got, same)
			}
		})
	}
}
