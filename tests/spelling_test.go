package tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// spellings are ways to write a path that has to do with /cart.php and /off.php: each web server makes something else
// of them.
var spellings = []string{
	"/cart.php", "/off.php", "/deep/x.php", "/deep/", "/cart.php?x=/off.php", "/cart.php?/../off.php",

	"/cart.php/../off.php", "/cart.php/..%2foff.php", "/cart.php/%2e%2e/off.php", "/cart.php/%2E%2e%2Foff.php",
	"/cart.php/.%2e/off.php", "/cart.php%2f..%2foff.php", "/cart.php%2f../off.php", "/cart.php/./../off.php",
	"/cart.php/../deep/x", "/cart.php/..%2fdeep%2fx", "/cart.php/../deep/x.php", "/cart.php/../deep/", "/cart.php/../../deep/x.php",
	"/cart.php//..//off.php", "//cart.php/../off.php", "/./cart.php/../off.php", "/cart.php/../cart.php/../off.php",

	"/off.php/../cart.php", "/off.php/..%2fcart.php", "/off.php/%2e%2e/cart.php", "/off.php%2f..%2fcart.php",
	"/deep/../cart.php", "/deep/..%2fcart.php", "/deep%2f../cart.php", "/deep/%2e%2e/cart.php", "/deep/.%2e/cart.php",
	"/deep/x.php/../../cart.php", "/deep/x.php%2f..%2f..%2fcart.php", "/../cart.php", "/./cart.php",

	"/cart.php/deep/x", "/cart.php/off.php", "/off.php/cart.php", "/deep/x.php/cart.php", "/cart.php/", "/cart.php/.", "/off.php/..",
	"//cart.php", "//off.php", "//deep/cart.php", "/deep//../cart.php", "///cart.php", "//deep//..//cart.php",
	`/cart.php\..\off.php`, `/off.php\..\cart.php`, "/off.php%5c..%5ccart.php", `\cart.php`, "/deep%5c..%5ccart.php",
	"/CART.php", "/Off.php", "/cart.PHP", "/cart.php.", "/off.php.", "/cart.php%20", "/cart.php+",
	"/%63art.php", "/%6fff.php", "/cart%2ephp", "/%2563art.php", "/%256fff.php", "/cart.php/%252e%252e/off.php", "/cart.php%3f/../off.php",
	"/cart.php%00", "/off.php%00/../cart.php", "/cart.php%00/off.php", "/off.php%00", "/cart.php/%00/../../off.php",
	"/cart.php;/../off.php", "/cart.php;x", "/off.php;x=/../cart.php", "/cart.php/..;/off.php", "/off.php/..;/cart.php",
	"/cart.php#/../off.php", "/off.php#/../cart.php", "/deep/#/../../cart.php", "/cart.php%23/../off.php", "/off.php%23/../cart.php",
	"http://localhost/cart.php", "http://localhost/cart.php/../off.php", "http://localhost/off.php/../cart.php",
	"http://off.php/cart.php", "http://deep/cart.php", "cart.php", "//deep/../cart.php", "/cart.php/http://deep/x",
}

// spelledServers are the web servers, and those of their settings that change what they make of a path.
func spelledServers() []webServer {
	with := func(name, as, settings string) webServer {
		web := webServers[slices.IndexFunc(webServers, func(w webServer) bool { return w.name == name })]
		if as != "" {
			web.name = as
		}
		start := web.start
		web.start = func(t *testing.T, r *rig.Rig, site *rig.Site) func() string {
			site.Settings += settings
			return start(t, r, site)
		}
		return web
	}
	return []webServer{
		with("nginx", "", ""),
		with("apache", "", ""),
		with("apache", "apache, AllowEncodedSlashes NoDecode", "AllowEncodedSlashes NoDecode"),
		with("apache", "apache, AllowEncodedSlashes On", "AllowEncodedSlashes On"),
		with("lighttpd", "", ""),
		with("caddy", "", ""),
		with("caddy", "caddy without try_files", "index off"),
		with("haproxy", "", ""),
		with("cgi-fcgi", "", ""),
		with("nginx", "nginx with a front controller", frontController),
	}
}

// frontController are settings of nginx's that end the location they stand in, and begin another.
const frontController = `} location / { try_files $uri /index.php$is_args$args;`

// TestSpellingDoesNotChooseARoute asks every web server for paths in all spellings, and PHP for what ran: cart.php,
// and the page /cart.php of a front controller, always hold their session. With the one gate, routes loosen what is
// not to be locked; with the other, the last route loosens all that those before it do not name.
func TestSpellingDoesNotChooseARoute(t *testing.T) {
	const loosen = `
  route "off" {
    path = ["/off.php", "/deep/**"]
    mode = "off"
  }`
	const tighten = `
  route "cart" {
    path = ["/cart.php"]
  }
  route "rest" {
    mode = "off"
  }`
	for _, web := range spelledServers() {
		for name, routes := range map[string]string{"loosen": loosen, "tighten": tighten} {
			t.Run(web.name+", routes that "+name, func(t *testing.T) {
				t.Parallel()
				site := spelledSite(t, web, routes)
				carts := 0
				for _, target := range spellings {
					if got := askSpelled(t, site, target, "localhost"); got.isCart(name) {
						carts++
						if got.Lock != "held" {
							t.Errorf("%s: %s ran without its lock, as %s; its path can be read as %q", target, got.Ran, got.Lock, got.Paths)
						}
					}
				}
				if carts < 10 {
					t.Errorf("the cart ran for %d spellings only: this test shows nothing", carts)
				}
				for target, want := range map[string]string{"/cart.php": "held", "/off.php": "none", "/deep/x.php": "none"} {
					if got := askSpelled(t, site, target, "localhost"); got.Ran != target || got.Lock != want {
						t.Errorf("%s: %s ran as %s, want %s", target, got.Ran, got.Lock, want)
					}
				}
			})
		}
	}
}

// spelled is what spelled.php says; the zero value means that no script answered the request.
type spelled struct {
	Ran, Lock, Host string
	Paths           []string
}

// isCart reports whether what ran is what has to be locked. Where routes tighten, that is whatever an application could
// take for the cart; where they loosen, whatever it could take for a page that is not loosened.
func (s spelled) isCart(routes string) bool {
	if s.Ran != "/index.php" {
		return s.Ran == "/cart.php"
	}
	if routes == "tighten" {
		return slices.Contains(s.Paths, "/cart.php")
	}
	return slices.ContainsFunc(s.Paths, func(p string) bool { return p != "/off.php" && !strings.HasPrefix(p+"/", "/deep/") })
}

func spelledSite(t *testing.T, web webServer, routes string) *rig.Site {
	r := newRig(t, web.program, "php-fpm")
	for _, as := range []string{"cart.php", "off.php", "deep/x.php", "index.php"} {
		copyScript(t, r, "spelled.php", as)
	}
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	gate := startGate(t, r, rig.GateOptions{Upstream: php.Addr, Settings: routes})
	site := &rig.Site{FastCGI: gate.Addr}
	web.start(t, r, site)
	return site
}

// askSpelled asks with a target and a host that no HTTP client would send.
func askSpelled(t *testing.T, site *rig.Site, target, host string) (s spelled) {
	t.Helper()
	c, err := net.Dial("tcp", site.Listen.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(requestTimeout))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nCookie: PHPSESSID=%s\r\nConnection: close\r\n\r\n", target, host, newSession())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	if resp.StatusCode == http.StatusOK && json.Unmarshal(body, &s) != nil {
		t.Logf("%s: not from PHP: %.100q", target, body)
	}
	return s
}

// TestSpellingOfTheHostDoesNotChooseARoute holds the route to the host that PHP sees. nginx tells PHP the Host
// header, though a host in the request line goes before it, unless its configuration says otherwise.
func TestSpellingOfTheHostDoesNotChooseARoute(t *testing.T) {
	servers := spelledServers()
	nginx := servers[0]
	nginx.name, nginx.start = "nginx that passes the host it chose by", func(t *testing.T, r *rig.Rig, site *rig.Site) func() string {
		site.Settings = "fastcgi_param HTTP_HOST $host;"
		return startNginx(t, r, site)
	}
	for _, web := range append(servers, nginx) {
		t.Run(web.name, func(t *testing.T) {
			t.Parallel()
			headerOnly := web.program == "nginx" && web.name != nginx.name
			site := spelledSite(t, web, `
  route "shop" {
    host = ["shop.example.org"]
    mode = "read"
  }`)
			for _, host := range []string{
				"shop.example.org", "SHOP.Example.org", "shop.example.org:80", "shop.example.org.", "Shop.example.org.:8080",
				"shop.example.org..", "shop.example.org.evil", "evil.shop.example.org", "a@shop.example.org", "shop.example.org@a",
				"shop%2eexample.org", "shop.example.org/x", "[::1]", "", "shop.example.org:x",
			} {
				for _, target := range []string{"/cart.php", "http://shop.example.org/cart.php", "http://other.example.org/cart.php"} {
					got := askSpelled(t, site, target, host)
					if got.Ran == "" {
						continue
					}
					want := "held"
					if isShop(got.Host) {
						want = "read"
					}
					if got.Lock != want {
						t.Errorf("Host %q, %s: PHP sees the host %q and the lock %s, want %s", host, target, got.Host, got.Lock, want)
					}
					if inLine := strings.HasPrefix(target, "http://shop."); target != "/cart.php" && !headerOnly && isShop(got.Host) != inLine {
						t.Errorf("Host %q, %s: PHP sees the host %q", host, target, got.Host)
					}
				}
			}
			if got := askSpelled(t, site, "/cart.php", "shop.example.org"); got.Lock != "read" {
				t.Errorf("the route's own host: got %s", got.Lock)
			}
		})
	}
}

// isShop reports whether DNS takes a host for shop.example.org.
func isShop(host string) bool {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	return strings.TrimSuffix(name, ".") == "shop.example.org"
}
