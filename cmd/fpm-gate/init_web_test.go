package main

import (
	"strings"
	"testing"
)

// An nginx from a package of its own, or from source, has its configuration elsewhere than in /etc/nginx.
func TestIncludesAreFoundNextToNginxConf(t *testing.T) {
	const main, site = "/opt/nginx/conf/nginx.conf", "/opt/nginx/conf/sites/a.conf"
	n := &nginxReader{system: &systemFiles{root: "/"}, upstreams: map[string][]pass{}}
	n.dumped("# configuration file " + main + ":\nhttp { include sites/*.conf; }\n\n" +
		"# configuration file " + site + ":\nserver { fastcgi_pass unix:/run/php.sock; }\n\n")
	n.read(main, nginxBlock{})
	got := n.resolve()
	if len(got) != 1 || got[0].address != "unix:/run/php.sock" || got[0].file != site || got[0].line != 1 {
		t.Errorf("got %+v, want the one of %s:1", got, site)
	}
}

// A server has the folders of its own directives, and inherits some of the http block, as in nginx.
func TestFoldersOfAnNginxServer(t *testing.T) {
	const php = "location ~ \\.php$ { fastcgi_pass unix:/p; "
	for name, c := range map[string]struct{ text, want string }{
		"its root":                           {"http { server { root /a; " + php + "} } }", "/a"},
		"its root, after the pass":           {"http { server { " + php + "} root /a; } }", "/a"},
		"of its locations":                   {"http { server { root /a; location /b { alias /b; } " + php + "root /c; } } }", "/a /b /c"},
		"of http":                            {"http { root /h; server { " + php + "} } }", "/h"},
		"of http, after the server":          {"http { server { " + php + "} } root /h; }", "/h"},
		"of http, with one of a location":    {"http { root /h; server { location /b { root /b; } " + php + "} } }", "/b /h"},
		"its own, not that of http":          {"http { root /h; server { root /a; " + php + "} } }", "/a"},
		"of http, not of another server":     {"http { root /h; server { root /a; } server { " + php + "} } }", "/h"},
		"of the server, by if":               {"http { server { root /a; if ($x) { fastcgi_pass unix:/p; } } }", "/a"},
		"of fastcgi_param":                   {"http { server { " + php + "fastcgi_param SCRIPT_FILENAME /s$fastcgi_script_name; } } }", "/s"},
		"of one script":                      {"http { server { " + php + "fastcgi_param SCRIPT_FILENAME /s/index.php; } } }", "/s"},
		"of DOCUMENT_ROOT":                   {"http { server { " + php + "fastcgi_param DOCUMENT_ROOT /d/; } } }", "/d"},
		"of a variable":                      {"http { server { root /a; " + php + "fastcgi_param DOCUMENT_ROOT $document_root; } } }", "/a"},
		"of fastcgi_param in http":           {"http { fastcgi_param DOCUMENT_ROOT /d; server { root /a; " + php + "} } }", "/a /d"},
		"of fastcgi_param, not that of http": {"http { fastcgi_param DOCUMENT_ROOT /d; server { " + php + "fastcgi_param HTTPS on; root /a; } } }", "/a"},
		"of included files":                  {"http { include p.conf; server { " + php + "} } }", "/i /s"},
		"none":                               {"http { server { " + php + "} } }", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := &nginxReader{system: &systemFiles{root: "/"}, upstreams: map[string][]pass{}}
			n.dumped("# configuration file /etc/nginx/nginx.conf:\n" + c.text + "\n" +
				"# configuration file /etc/nginx/p.conf:\nroot /i; fastcgi_param SCRIPT_FILENAME /s$fastcgi_script_name;\n")
			n.read("/etc/nginx/nginx.conf", nginxBlock{})
			got := n.resolve()
			if len(got) != 1 || strings.Join(got[0].folders, " ") != c.want {
				t.Errorf("got %+v, want one with the folders %s", got, c.want)
			}
		})
	}
}
