package admin

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// serve has the gate of the stand listen, and gives it a PHP-FPM that does nothing but accept.
func (s *stand) serve() (php net.Listener) {
	s.t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("unix", filepath.Join(s.t.TempDir(), "s"))
		if err != nil {
			s.t.Fatal(err)
		}
		return l
	}
	php = listen()
	g := s.served.Gates[0]
	g.Configure(gate.Options{Name: "www", Locks: s.locks, Upstream: fcgi.PoolOptions{Addrs: []netaddr.Addr{{Network: "unix", Address: php.Addr().String()}}}})
	go func() { _ = g.Serve(listen()) }()
	await(s.t, "the gate listens", g.Listening)
	return php
}

func (s *stand) ready() (int, string) {
	page := checkReadiness(s.options.Served()) // not as it was a moment ago
	if page.Ready {
		return http.StatusOK, strings.Join(page.Warnings, "; ")
	}
	return http.StatusServiceUnavailable, strings.Join(page.Reasons, "; ")
}

func TestReadinessNamesWhatIsMissing(t *testing.T) {
	s := newStand(t)
	want := func(status int, says string) {
		t.Helper()
		if got, text := s.ready(); got != status || !strings.Contains(text, says) {
			t.Errorf("got %d and %q, want %d and %q", got, text, status, says)
		}
	}
	want(503, `gate "www": not listening`)
	php := s.serve()
	want(200, "")
	s.change(func(v *Served) { v.Gates[0].SocketGone = true })
	want(503, `gate "www": its socket was removed or replaced; a reload makes it anew`)
	s.change(func(v *Served) { v.Gates[0].SocketGone = false })
	want(200, "")
	s.change(func(v *Served) { v.ReloadFailed = true })
	want(200, "last reload failed")
	s.far.failure = errors.New("10.0.0.1:11211: down")
	want(503, "lock store: 10.0.0.1:11211: down")
	s.far.failure = nil
	want(200, "")
	_ = php.Close()
	want(503, `gate "www": upstream unix:`)
	s.change(func(v *Served) { v.Draining = true })
	want(503, "shutting down")
	s.change(func(v *Served) { *v = Served{} })
	want(503, "no config")
}

func TestHealthAndReadinessAnswer(t *testing.T) {
	s := newStand(t)
	s.serve()
	for _, network := range []string{"unix", "tcp"} {
		c := s.listen(network)
		if status, text := c.ask("GET", "/healthz", ""); status != 200 || text != "ok\n" {
			t.Errorf("health: got %d and %q", status, text)
		}
		if page := get[ReadinessPage](c, "/readyz"); !page.Ready || page.Reasons == nil || page.Warnings == nil {
			t.Errorf("readiness: got %+v", page)
		}
	}
	s.change(func(v *Served) { v.Draining = true })
	if status, text := s.listen("unix").ask("GET", "/readyz", ""); status != 503 || !strings.Contains(text, "shutting down") {
		t.Errorf("draining: got %d and %q", status, text)
	}
}
