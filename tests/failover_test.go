package tests

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// What a web server does when PHP-FPM is away: to it, the gate has to look as PHP-FPM itself would.

// statusOfAnEmptyResponse is what a web server answers where a conn that ends without a response is not the same to it as
// one that is refused. The gate has accepted by then.
var statusOfAnEmptyResponse = map[string]int{"lighttpd": http.StatusInternalServerError, "haproxy": http.StatusBadGateway}

func TestPHPFPMsFailuresAreTheWebServersToAnswer(t *testing.T) {
	for _, web := range webServers {
		for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
			t.Run(web.name+" over "+network.Network, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, web.program, "php-fpm")
				php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: network})
				gate := startGate(t, r, rig.GateOptions{Listen: network, Upstream: php.Addr})
				gated := &rig.Site{FastCGI: gate.Addr, Keepalive: web.keepalive}
				straight := &rig.Site{FastCGI: php.Addr, Keepalive: web.keepalive}
				web.start(t, r, gated)
				web.start(t, r, straight)
				same := func(what string, q func() request, refused bool) {
					t.Helper()
					got, want := ask(gated, q()), ask(straight, q())
					if status := statusOfAnEmptyResponse[web.program]; refused && status != 0 {
						want.status = status
					}
					if got.status != want.status || (got.err == nil) != (want.err == nil) {
						t.Errorf("%s: got %d and %v, without the gate %d and %v", what, got.status, got.err, want.status, want.err)
					}
				}
				get := func() request { return request{path: "/hello.php", session: newSession()} }
				post := func() request {
					return request{method: "POST", path: "/upload.php", session: newSession(), body: strings.NewReader("x")}
				}
				same("a worker that dies before its response", func() request { return request{path: "/die.php?kb=0"} }, false)
				same("a page after that", get, false)
				if err := php.Stop(); err != nil {
					t.Fatal(err)
				}
				same("GET, PHP-FPM is stopped", get, true)
				same("POST, PHP-FPM is stopped", post, true)
				awaitLog(t, gate.Server, "PHP-FPM cannot be reached")
			})
		}
	}
}

// pairOf starts two PHP-FPMs, each behind its gate, and returns what the gates listen on, what the PHP-FPMs do, and how
// to stop the first of these.
func pairOf(t *testing.T, r *rig.Rig, network rig.Addr) (gates, straight [2]rig.Addr, stop func()) {
	t.Helper()
	var php [2]*rig.PHPFPM
	for i := range php {
		php[i] = rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: network})
		gates[i] = startGate(t, r, rig.GateOptions{Listen: network, Upstream: php[i].Addr}).Addr
		straight[i] = php[i].Addr
	}
	return gates, straight, func() {
		if err := php[0].Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// failures asks for 20 pages, GET and POST in turn, and returns how many of each fail.
func failures(site *rig.Site) (gets, posts int) {
	for range 10 {
		if ask(site, request{path: "/hello.php"}).failure() != nil {
			gets++
		}
		if ask(site, request{method: "POST", path: "/upload.php", body: strings.NewReader("x")}).failure() != nil {
			posts++
		}
	}
	return gets, posts
}

// nginx sends a POST to no other server once it has sent it anywhere. So while a server is not known to be down, one
// POST of its fail_timeout fails.
func TestNginxTriesTheNextServer(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		r := newRig(t, "nginx", "php-fpm")
		gates, straight, stop := pairOf(t, r, network)
		stop()
		for _, c := range []struct {
			name  string
			pair  [2]rig.Addr
			posts int // that may fail
		}{{"without the gate", straight, 0}, {"with the gate", gates, 1}} {
			site := &rig.Site{FastCGI: rig.Addr{Network: "tcp", Address: "pair"}}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{
				Sites: []*rig.Site{site},
				HTTP:  fmt.Sprintf("upstream pair { server %s fail_timeout=1h; server %s; }", c.pair[0], c.pair[1]),
			})
			if gets, posts := failures(site); gets > 0 || posts > c.posts {
				t.Errorf("%s: %d of 10 GETs and %d of 10 POSTs failed, want 0 and at most %d", c.name, gets, posts, c.posts)
			}
		}
	})
}

// nginx sends a GET again if its kept conn ends without a response. One that may have run must not be.
func TestNginxDoesNotRepeatAScriptThatDied(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Site: rig.Site{Keepalive: 4}})
	for i := range 3 {
		var warm []<-chan response
		for range 4 {
			warm = append(warm, s.begin("/nosession.php?ms=20", ""))
		}
		for _, r := range warm {
			(<-r).mustBe(t, "no session\n")
		}
		mark := fmt.Sprint("died-", i)
		if r := s.get("/once.php?say=x&mark="+mark, ""); r.status != http.StatusBadGateway {
			t.Errorf("got status %d and error %v, want 502", r.status, r.err)
		}
		if got := notes(t, s.Rig, mark); len(got) != 1 {
			t.Errorf("the script ran %d times, want once", len(got))
		}
	}
}

func TestNginxServesItsStalePages(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		r := newRig(t, "nginx", "php-fpm")
		php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: network})
		gate := startGate(t, r, rig.GateOptions{Listen: network, Upstream: php.Addr})
		var sites []*rig.Site
		for _, to := range []rig.Addr{php.Addr, gate.Addr} {
			site := &rig.Site{FastCGI: to, Settings: `
				fastcgi_cache pages;
				fastcgi_cache_key $request_uri;
				fastcgi_cache_valid 200 1s;
				fastcgi_ignore_headers Cache-Control Expires Set-Cookie;
				fastcgi_cache_use_stale error timeout;
				add_header X-Cache $upstream_cache_status;`}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{
				Sites: []*rig.Site{site},
				HTTP:  fmt.Sprintf("fastcgi_cache_path %s keys_zone=pages:1m;", filepath.Join(t.TempDir(), "cache")),
			})
			ask(site, request{path: "/hello.php"}).mustBe(t, "hello\n")
			sites = append(sites, site)
		}
		if err := php.Stop(); err != nil {
			t.Fatal(err)
		}
		for i, site := range sites {
			eventually(t, "the page is stale, and served", func() bool {
				got := ask(site, request{path: "/hello.php"})
				got.mustBe(t, "hello\n")
				return got.header.Get("X-Cache") == "STALE" || t.Failed()
			})
			if t.Failed() {
				t.Fatalf("site %d of without, with the gate", i)
			}
		}
	})
}

// HAProxy retries a conn that is refused by itself; one that ends without a response if it is configured to.
func TestHAProxyTriesTheNextServer(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		r := newRig(t, "haproxy", "php-fpm")
		gates, straight, stop := pairOf(t, r, network)
		var sites []*rig.Site
		for _, pair := range [][2]rig.Addr{straight, gates} {
			second := pair[1].String()
			if pair[1].Network == "unix" {
				second = "unix@" + pair[1].Address
			}
			site := &rig.Site{FastCGI: pair[0], Settings: `
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
    server second ` + second + ` proto fcgi`}
			if _, err := r.HAProxy(site); err != nil {
				t.Fatal(err)
			}
			sites = append(sites, site)
		}
		stop()
		for i, site := range sites {
			if gets, posts := failures(site); gets > 0 || posts > 0 {
				t.Errorf("site %d of without, with the gate: %d of 10 GETs and %d of 10 POSTs failed", i, gets, posts)
			}
		}
	})
}
