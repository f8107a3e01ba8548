package rig_test

import (
	"os"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

func TestWebServersPassPHPOn(t *testing.T) {
	tests := []struct {
		program    string
		start      func(*rig.Rig, *rig.Site) (*rig.Server, error)
		keepsConns bool
	}{
		{"apache2", (*rig.Rig).Apache, true},
		{"lighttpd", (*rig.Rig).Lighttpd, false},
		{"caddy", (*rig.Rig).Caddy, false},
		{"haproxy", (*rig.Rig).HAProxy, true},
	}
	for _, tt := range tests {
		t.Run(tt.program, func(t *testing.T) {
			r := rigtest.New(t, "php-fpm", tt.program)
			start := func(s *rig.Site) (*rig.Server, error) { return tt.start(r, s) }
			for _, listen := range []rig.Addr{rig.Unix, rig.TCP} {
				php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: listen})
				site := &rig.Site{FastCGI: php.Addr, Unbuffered: true}
				if tt.keepsConns {
					site.Keepalive = 2
				}
				web := rigtest.Start(t, start, site)
				passesPHPOn(t, site)
				comesBack(t, web)
				passesPHPOn(t, site)
			}
			_, err := start(&rig.Site{FastCGI: rig.ParseAddr("unix:/x"), Keepalive: 1})
			if (err == nil) != tt.keepsConns {
				t.Errorf("keepalive: got error %v, want one: %t", err, !tt.keepsConns)
			}
		})
	}
}

func passesPHPOn(t *testing.T, site *rig.Site) {
	t.Helper()
	if got, want := get(t, site.URL("/hello.php")), "hello\n"; got != want {
		t.Errorf("hello.php: got %q, want %q", got, want)
	}
	info := get(t, site.URL("/info.php/path?session=0"))
	for _, want := range []string{`"query":"session=0"`, `"script":"/info.php"`, `"path_info":"/path"`} {
		if !strings.Contains(info, want) {
			t.Errorf("info.php: got %s, want %s in it", info, want)
		}
	}
}

func TestSessionsLiveInTheStores(t *testing.T) {
	r := rigtest.New(t, "nginx", "php-fpm", "memcached", "redis-server", "php-memcached", "php-redis")
	for _, listen := range []rig.Addr{rig.Unix, rig.TCP} {
		memcached := rigtest.Start(t, r.Memcached, rig.StoreOptions{Listen: listen})
		redis := rigtest.Start(t, r.Redis, rig.StoreOptions{Listen: listen})
		tests := []struct {
			name  string
			ini   map[string]string
			files int // in the folder of session files
		}{
			{"files", nil, 1},
			{"memcached", rig.MemcachedSessions(memcached), 0},
			{"redis", rig.RedisSessions(redis, false), 0},
			{"redis that locks", rig.RedisSessions(redis, true), 0},
		}
		for _, tt := range tests {
			t.Run(tt.name+" over "+listen.Network, func(t *testing.T) {
				php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 1, INI: tt.ini})
				site := &rig.Site{FastCGI: php.Addr}
				rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
				browser := newClient(t)
				browser.get(t, site.URL("/work.php"))
				if got, want := browser.get(t, site.URL("/work.php")), "2\n"; got != want {
					t.Errorf("the second count: got %q, want %q", got, want)
				}
				files, err := os.ReadDir(php.Sessions)
				if got, want := len(files), tt.files; err != nil || got != want {
					t.Errorf("session files: got %d and error %v, want %d", got, err, want)
				}
			})
		}
		comesBack(t, memcached)
		comesBack(t, redis)
	}
}
