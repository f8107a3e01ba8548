package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/config"
)

func TestDifferencesToPHPsSettingsAreFound(t *testing.T) {
	const debian, fedora = "etc/php/8.4/fpm/pool.d/www.conf", "etc/php-fpm.d/www.conf"
	for name, c := range map[string]struct {
		upstream string
		session  string
		files    map[string]string
		want     []string
	}{
		"nothing to read": {want: nil},
		"all the same": {
			files: map[string]string{
				debian:                    "[www]\nlisten = /run/php.sock\n;php_value[session.save_path] = /old\n",
				"etc/php/8.4/fpm/php.ini": "[PHP]\n[Session]\nsession.save_handler = files\nsession.save_path = \"/srv/sessions/\"\nsession.name = PHPSESSID\n",
			},
		},
		"the pool's save_path goes before php.ini's": {
			files: map[string]string{
				debian:                    "[www]\nlisten = /run/php.sock\nphp_admin_value[session.save_path] = /srv/other ; moved\n",
				"etc/php/8.4/fpm/php.ini": "session.save_path = /srv/sessions\n",
			},
			want: []string{debian + `:3: session.save_path is "/srv/other", but save_path is "/srv/sessions"`},
		},
		"what follows php.ini goes before it": {
			files: map[string]string{
				debian:                            "[www]\nlisten = /run/php.sock\n",
				"etc/php/8.4/fpm/php.ini":         "session.save_path = /old\n",
				"etc/php/8.4/fpm/conf.d/10-a.ini": "session.save_path = /older\n",
				"etc/php/8.4/fpm/conf.d/20-b.ini": "session.save_path = /srv/sessions\n",
			},
		},
		"a socket with the pool's name": {
			upstream: "unix:/run/www.sock",
			files: map[string]string{
				debian: "[www]\nlisten = /run/$pool.sock\nphp_value[session.save_path] = /srv/$pool\n",
			},
			want: []string{debian + `:3: session.save_path is "/srv/www", but save_path is "/srv/sessions"`},
		},
		"another pool is not ours": {
			files: map[string]string{debian: "[a]\nlisten = /run/a.sock\nphp_value[session.save_path] = /a\n[www]\nlisten = /run/php.sock\n"},
		},
		"another handler, with a save_path of its own": {
			files: map[string]string{fedora: "[www]\nlisten = /run/php.sock\nphp_value[session.save_handler] = redis\nphp_value[session.save_path] = tcp://r:6379\n"},
			want:  []string{fedora + `:3: session.save_handler is "redis", but handler is "files"`},
		},
		"depth and mode": {
			files: map[string]string{fedora: "[www]\nlisten = /run/php.sock\nphp_value[session.save_path] = \"2;0600;/srv/sessions\"\n"},
		},
		"another cookie, on a port": {
			upstream: "127.0.0.1:9000", session: `cookies = ["A", "B"]`,
			files: map[string]string{"etc/php.ini": "session.name = MoodleSession\n", fedora: "[www]\nlisten = 9000\n"},
			want:  []string{`etc/php.ini:1: session.name is "MoodleSession", but cookies is "A, B"`},
		},
		"a pattern that the name matches": {
			session: `cookies = ["Moodle*"]`,
			files:   map[string]string{"etc/php.ini": "session.name = MoodleSession\n", fedora: "[www]\nlisten = /run/php.sock\n"},
		},
		"an application that names its cookie itself": {
			session: `application = "phpmyadmin"`,
			files:   map[string]string{"etc/php.ini": "session.name = PHPSESSID\n", fedora: "[www]\nlisten = /run/php.sock\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range c.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			upstream := c.upstream
			if upstream == "" {
				upstream = "unix:/run/php.sock"
			}
			conf, err := config.Parse([]byte(`gate "www" {
  listen = "unix:/run/gate.sock"
  upstream { address = "`+upstream+`" }
  session {
    handler   = "files"
    save_path = "/srv/sessions"
    `+c.session+`
  }
}`), "test.hcl")
			if err != nil {
				t.Fatal(err)
			}
			got := differences(conf.Gates[0], root)
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], root+"/")
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSessionFilesAreDescribed(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	want := func(text string) {
		t.Helper()
		if got := sessionFiles(dir, now); !strings.Contains(got, text) {
			t.Errorf("got %q, want it to say %q", got, text)
		}
	}
	want("warning: no session files")
	for file, age := range map[string]time.Duration{"sess_a": time.Hour, "sess_b": 3 * time.Minute, "other": 0} {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	want("2 session files, the newest written 3m0s ago")
	dir = filepath.Join(dir, "missing")
	want("no such file")
}
