package tests

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// relayTo passes connections on, so that the process that listens is not PHP-FPM, but this test.
func relayTo(t *testing.T, to rig.Addr) rig.Addr {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			php, err := net.Dial(to.Network, to.Address)
			if err != nil {
				from.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(php, from)
				_ = php.(*net.UnixConn).CloseWrite()
			}()
			go func() {
				_, _ = io.Copy(from, php)
				from.Close()
				php.Close()
			}()
		}
	}()
	return rig.Addr{Network: "unix", Address: l.Addr().String()}
}

// TestWorkersThatCannotBeSeenAreReported, with the reason, and those that can are not.
func TestWorkersThatCannotBeSeenAreReported(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	for name, unseen := range map[string]int{"behind a relay": 1, "reached directly": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "nginx", "php-fpm")
			php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
			upstream := php.Addr
			if unseen == 1 {
				upstream = relayTo(t, php.Addr)
			}
			block, admin := adminBlock(t)
			s := &stack{Rig: r, PHP: php}
			s.Gate = startGate(t, r, rig.GateOptions{Upstream: upstream, Config: block})
			s.Site = &rig.Site{FastCGI: s.Gate.Addr}
			s.Web = rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})

			said := map[int]string{1: "cannot watch PHP sessions in the workers", 0: "PHP sessions are watched in the workers"}[unseen]
			eventually(t, "the gate has looked", func() bool {
				if r := s.get("/work.php?ms=20", newSession()); r.failure() != nil {
					t.Fatal(r.failure())
				}
				return strings.Contains(s.Gate.Log(), said)
			})
			want := fmt.Sprintf(`fpm_gate_upstream_workers_unseen{address=%q,gate="www"} %d`, upstream, unseen)
			if got := admin.get(t, "/metrics"); !strings.Contains(got, want) {
				t.Errorf("the metrics have no %s", want)
			}
			if got := strings.Contains(admin.get(t, "/readyz"), "is not a known PHP-FPM"); got != (unseen == 1) {
				t.Errorf("whether /readyz warns: got %v", got)
			}
		})
	}
}
