package main

import "testing"

// An nginx from a package of its own, or from source, has its configuration elsewhere than in /etc/nginx.
func TestIncludesAreFoundNextToNginxConf(t *testing.T) {
	const main, site = "/opt/nginx/conf/nginx.conf", "/opt/nginx/conf/sites/a.conf"
	n := &nginxReader{m: &machine{root: "/"}, upstreams: map[string][]pass{}}
	n.dumped("# configuration file " + main + ":\nhttp { include sites/*.conf; }\n\n" +
		"# configuration file " + site + ":\nserver { fastcgi_pass unix:/run/php.sock; }\n\n")
	n.read(main, nginxBlock{})
	got := n.resolve()
	if len(got) != 1 || got[0].address != "unix:/run/php.sock" || got[0].file != site || got[0].line != 1 {
		t.Errorf("got %+v, want the one of %s:1", got, site)
	}
}
