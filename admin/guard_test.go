package admin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

func TestPagesOfOthersAreKeptOut(t *testing.T) {
	s := newStand(t)
	c := s.listen("tcp")
	for _, r := range []struct {
		name         string
		method, path string
		header       []string
		status       int
	}{
		{"a program", "DELETE", "/locks/abcd", nil, http.StatusOK},
		{"the page itself", "DELETE", "/locks/abcd", []string{"Sec-Fetch-Site", "same-origin", "Origin", c.base}, http.StatusOK},
		{"an old browser with the page itself", "DELETE", "/locks/abcd", []string{"Origin", c.base}, http.StatusOK},
		{"a page elsewhere", "DELETE", "/locks/abcd", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, http.StatusForbidden},
		{"a page of the same site on another port", "DELETE", "/locks/abcd", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
		{"a page elsewhere, in an old browser", "DELETE", "/locks/abcd", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"a page without an origin", "DELETE", "/locks/abcd", []string{"Origin", "null"}, http.StatusForbidden},
		{"a page whose name leads here", "DELETE", "/locks/abcd", []string{"Host", "evil.example", "Sec-Fetch-Site", "same-origin"}, http.StatusMisdirectedRequest},
		{"a page whose name leads here, with the port", "GET", "/locks", []string{"Host", "evil.example:9180"}, http.StatusMisdirectedRequest},
		{"a page elsewhere that pauses", "PUT", "/pause?for=1m", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, http.StatusForbidden},
		{"a page elsewhere that pauses, in an old browser", "PUT", "/pause?for=1m", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"a page elsewhere that resumes", "DELETE", "/pause", []string{"Sec-Fetch-Site", "same-site", "Origin", "http://127.0.0.1:1"}, http.StatusForbidden},
		{"a page elsewhere that changes the level", "PUT", "/log-level", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"a page elsewhere that looks", "GET", "/locks", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, http.StatusForbidden},
		{"a link that leads to a profile", "GET", "/debug/pprof/heap", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, http.StatusForbidden},
		{"a typed address", "GET", "/locks", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, http.StatusOK},
		{"localhost", "GET", "/locks", []string{"Host", "localhost:9180"}, http.StatusOK},
		{"an address of IPv6", "GET", "/locks", []string{"Host", "[::1]:9180"}, http.StatusOK},
		{"an address of IPv6 without a port", "GET", "/locks", []string{"Host", "[::1]"}, http.StatusOK},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := s.hold(keys[0], "/export.php")
			defer l.Release()
			status, text := c.ask(r.method, r.path, "debug", r.header...)
			if status != r.status {
				t.Errorf("got status %d and %s, want %d", status, text, r.status)
			}
			if broken, want := l.Err() == sessionlock.ErrBroken, r.method == "DELETE" && r.status == http.StatusOK; broken != want {
				t.Errorf("broken: got %t, want %t", broken, want)
			}
		})
	}
	if status, text := c.ask("GET", "/log-level", ""); text != "info\n" {
		t.Errorf("got status %d and level %q after all that, want info", status, text)
	}
	if p := get[PausePage](c, "/pause"); len(p.Gates) != 1 || p.Gates[0].Paused {
		t.Errorf("got %+v after all that, want a gate that is not paused", p)
	}
}

func TestAUnixSocketIsGuardedByItsModeAlone(t *testing.T) {
	s := newStand(t)
	if status, text := s.listen("unix").ask("GET", "/locks", "", "Host", "whatever"); status != http.StatusOK {
		t.Errorf("got status %d and %s", status, text)
	}
}

// A client that announces a body and does not send it holds one of few connections, whatever it asked for.
func TestABodyThatDoesNotComeIsNotAwaitedForLong(t *testing.T) {
	s := newStand(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := s.Serve(l)
	defer server.Close()
	var all sync.WaitGroup
	for _, request := range []string{
		"GET /healthz", "GET /locks", "GET /nowhere", "PUT /pause?for=1s", "PUT /pause", "PUT /log-level",
		"DELETE /pause", "DELETE /locks/abcd", "POST /locks",
	} {
		for _, body := range []string{"Content-Length: 1000", "Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
			all.Go(func() {
				nc, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer nc.Close()
				_ = nc.SetReadDeadline(time.Now().Add(patience))
				_, _ = fmt.Fprintf(nc, "%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n", request, body)
				if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s with %s: the connection is still open", request, body)
				}
			})
		}
	}
	all.Wait()
}
