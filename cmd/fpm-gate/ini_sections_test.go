package main

import (
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// iniSections are the texts of a php.ini, and the session.name that PHP takes of them.
var iniSections = map[string]string{
	"session.name = A\nsession.name = B\n":                                          "B",
	"session.name = A\n[Session]\nsession.name = B\n":                               "B",
	"[Session]\nsession.name = A\n[custom]\nsession.name = B\n":                     "B",
	"[A]\nsession.name = A\n[B]\n[A]\nsession.name = B\n":                           "B",
	"[A]\nsession.name = A\n[HOST=shop.example]\nsession.name = B\n":                "A",
	"[A]\nsession.name = A\n[path=/srv/shop]\nsession.name = B\n":                   "A",
	"[A]\nsession.name = A\n[PATH=/srv]\nsession.name = B\n[C]\nsession.name = C\n": "A",
	"[A]\nsession.name = A\n[Hosts]\nsession.name = B\n":                            "A",
	"[A]\nsession.name = A\n[Path]\nsession.name = B\n":                             "B",
}

func TestLastSectionOfPHPINICounts(t *testing.T) {
	for text, want := range iniSections {
		root := system(t, map[string]string{"php.ini": text})
		if got := readPHPINI(filepath.Join(root, "php.ini"))["session.name"].value; got != want {
			t.Errorf("got %q, want %q of\n%s", got, want, text)
		}
	}
}

// TestPHPReadsTheseSections checks the table against PHP.
func TestPHPReadsTheseSections(t *testing.T) {
	rigtest.Need(t, "php")
	php, err := rig.Find("php")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range iniSections {
		file := filepath.Join(system(t, map[string]string{"php.ini": text}), "php.ini")
		out, err := exec.Command(php, "-c", file, "-r", "echo ini_get('session.name');").Output()
		if err != nil || string(out) != want {
			t.Errorf("PHP has %q and %v, want %q of\n%s", out, err, want, text)
		}
	}
}

// TestSectionsOfOneNameAreOnePool reads pools as PHP-FPM does, by the files' names and then by their lines.
func TestSectionsOfOneNameAreOnePool(t *testing.T) {
	const www = "[www]\nlisten = 127.0.0.1:9000\npm.max_children = 5\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  []map[string]string
	}{
		"PHP's image": {
			map[string]string{
				"docker.conf":    "[global]\nlog_limit = 8192\n\n[www]\naccess.log = /proc/self/fd/2\n",
				"www.conf":       www,
				"zz-docker.conf": "[global]\ndaemonize = no\n\n[www]\nlisten = 9000\n",
			},
			[]map[string]string{{sectionKey: "www", "listen": "9000", "pm.max_children": "5"}},
		},
		"within a file, in another case": {
			map[string]string{"a.conf": www + "[b]\nlisten = 1\n[WWW]\npm.max_children = 7\n"},
			[]map[string]string{
				{sectionKey: "www", "listen": "127.0.0.1:9000", "pm.max_children": "7"}, {sectionKey: "b", "listen": "1"},
			},
		},
		"the first php_value counts": {
			map[string]string{
				"a.conf": www + "php_value[session.name] = A\nphp_value[session.name] = B\n",
				"b.conf": "[www]\nphp_value[session.name] = C\nphp_flag[session.name] = D\n",
			},
			[]map[string]string{{sectionKey: "www", "session.name": "A"}},
		},
		"php_admin_value counts more": {
			map[string]string{
				"a.conf": www + "php_value[session.name] = A\nphp_admin_value[session.name] = B\n",
				"b.conf": "[www]\nphp_admin_flag[session.name] = C\nphp_value[session.name] = D\n",
			},
			[]map[string]string{{sectionKey: "www", "session.name": "B"}},
		},
		"php_admin_value in a later section": {
			map[string]string{"a.conf": www + "php_value[session.name] = A\n[www]\nphp_admin_value[session.name] = B\n"},
			[]map[string]string{{sectionKey: "www", "session.name": "B"}},
		},
		"pools of two versions of PHP": {
			map[string]string{"8.2/www.conf": www, "8.4/www.conf": "[www]\nlisten = 9004\n"},
			[]map[string]string{{sectionKey: "www", "listen": "127.0.0.1:9000"}, {sectionKey: "www", "listen": "9004"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := system(t, c.files)
			var files []string
			for _, pattern := range []string{"*.conf", "*/*.conf"} {
				found, _ := filepath.Glob(filepath.Join(root, pattern))
				files = append(files, found...)
			}
			var pools []settings
			for _, pool := range readPools(files) {
				if pool["listen"].value != "" {
					pools = append(pools, pool)
				}
			}
			if len(pools) != len(c.want) {
				t.Fatalf("got %v, want %v", pools, c.want)
			}
			for i, want := range c.want {
				got := map[string]string{}
				for key := range want {
					got[key] = pools[i][key].value
				}
				if !maps.Equal(got, want) {
					t.Errorf("pool %d: got %v, want %v", i, got, want)
				}
				if !strings.HasPrefix(pools[i].folder(), root) {
					t.Errorf("pool %d: got folder %q", i, pools[i].folder())
				}
			}
		})
	}
}

// TestInitReadsAPoolInSeveralFiles wants one gate, with what PHP-FPM takes of all files, and check to agree.
func TestInitReadsAPoolInSeveralFiles(t *testing.T) {
	root := system(t, map[string]string{
		"usr/local/etc/php-fpm.d/www.conf": "[www]\nlisten = 127.0.0.1:9001\npm.max_children = 5\n" +
			"php_admin_value[session.name] = SHOP\nphp_value[session.name] = OTHER\n",
		"usr/local/etc/php-fpm.d/zz-docker.conf": "[global]\ndaemonize = no\n\n[www]\nlisten = 9000\n",
		"usr/local/etc/php/php.ini": "[Session]\nsession.save_handler = files\nsession.save_path = /srv/old\n" +
			"[own]\nsession.save_path = /srv/new\n[HOST=x]\nsession.save_path = /srv/host\n",
	})
	text, _ := runInit(t, root, initOptions{})
	c := parsed(t, text)
	if len(c.Gates) != 1 {
		t.Fatalf("got %d gates\n%s", len(c.Gates), text)
	}
	g := c.Gates[0]
	if g.Upstream.Addresses[0].Address != "127.0.0.1:9000" || g.Upstream.MaxConnections != 5 ||
		g.Session.Cookies[0] != "SHOP" || g.Session.SavePath != "/srv/new" {
		t.Errorf("got %+v", g)
	}
	if all := differences(g, root); len(all) > 0 {
		t.Errorf("check: got %q", all)
	}
}
