package tests

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestHAProxyMayMultiplex has HAProxy send up to 20 requests at once over one conn. PHP-FPM serves them one after the
// other, and so does the gate.
func TestHAProxyMayMultiplex(t *testing.T) {
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		for _, asks := range []bool{false, true} {
			t.Run(fmt.Sprintf("over %s, asking for limits %t", network.Network, asks), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "haproxy", "php-fpm")
				php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
				gate := startGate(t, r, rig.GateOptions{Listen: network, Upstream: php.Addr})
				site := &rig.Site{FastCGI: gate.Addr, Keepalive: 3, Multiplex: 20, AskValues: asks}
				if _, err := r.HAProxy(site); err != nil {
					t.Fatal(err)
				}
				session := newSession()
				var pages, posts []<-chan response
				sum := func(i int) (body, want string) {
					body = strings.Repeat(fmt.Sprint(i), 10_000)
					return body, fmt.Sprintf("%d %x\n", len(body), sha256.Sum256([]byte(body)))
				}
				for i := range 100 {
					body, _ := sum(i)
					posts = append(posts, begin(site, request{method: "POST", path: "/upload.php", session: newSession(), body: strings.NewReader(body)}))
					pages = append(pages, begin(site, request{path: "/hello.php", session: session}))
				}
				for i := range posts {
					_, want := sum(i)
					(<-posts[i]).mustBe(t, want)
					(<-pages[i]).mustBe(t, "hello\n")
				}
			})
		}
	}
}
