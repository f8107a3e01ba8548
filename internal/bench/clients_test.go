package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestABrowserReadsWholeResponses(t *testing.T) {
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/length":
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "whole")
		case "/chunks":
			for _, part := range []string{"in ", "three ", "parts"} {
				fmt.Fprint(w, part)
				w.(http.Flusher).Flush()
			}
		case "/empty":
		case "/cookie":
			fmt.Fprint(w, r.Header.Get("Cookie"))
		}
	})
	b, err := openBrowser(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	tests := []struct{ path, session, want string }{
		{"/length", "", "whole"},
		{"/chunks", "", "in three parts"},
		{"/empty", "", ""},
		{"/length", "", "whole"},
		{"/cookie", "abc", "theme=dark; PHPSESSID=abc"},
		{"/cookie", "", ""},
	}
	for _, tt := range tests {
		body, err := b.get(tt.path, tt.session)
		if got, want := string(body), tt.want; got != want || err != nil {
			t.Errorf("%s: got %q and error %v, want %q", tt.path, got, err, want)
		}
	}
}

func TestABrowserGoesOnAfterAnErrorPage(t *testing.T) {
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			http.Error(w, "busy", http.StatusServiceUnavailable)
		}
	})
	b, err := openBrowser(t.Context(), site)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if _, err := b.get("/busy", ""); !errors.Is(err, errStatus) {
		t.Errorf("got error %v, want %v", err, errStatus)
	}
	if _, err := b.get("/", ""); err != nil {
		t.Errorf("the next page: %v", err)
	}
}

func TestALoadCountsItsRequests(t *testing.T) {
	served := make(chan string, 100000)
	site := serve(t, func(w http.ResponseWriter, r *http.Request) {
		served <- r.Header.Get("Cookie")
		fmt.Fprint(w, "hello\n")
	})
	got, err := hello(site, 3).run(t.Context(), 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := got.requests, len(served); got != want || got < 3 {
		t.Errorf("got %d requests, want %d", got, want)
	}
	close(served)
	cookies := map[string]bool{}
	for cookie := range served {
		if cookies[cookie] {
			t.Fatalf("the cookie %s came twice", cookie)
		}
		cookies[cookie] = true
	}
}

func TestAWrongResponseEndsALoad(t *testing.T) {
	site := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "goodbye\n") })
	if _, err := hello(site, 2).run(t.Context(), time.Minute); err == nil {
		t.Error("got no error")
	}
}

func serve(t *testing.T, handler http.HandlerFunc) *rig.Site {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return &rig.Site{Listen: rig.Addr{Network: "tcp", Address: s.Listener.Addr().String()}}
}

// TestTheClientSpeaksFastCGI lets the standard library judge it.
func TestTheClientSpeaksFastCGI(t *testing.T) {
	large := strings.Repeat("large ", 50000)
	c := dialHandler(t, func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("PHPSESSID")
		fmt.Fprintln(w, r.Method, r.URL, r.Host, cookie, err, large)
	})
	if err := c.send("/www", "/x.php", "a=b", "abc"); err != nil {
		t.Fatal(err)
	}
	var response bytes.Buffer
	if err := c.receive(&response, nil); err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(response.String(), "\r\n\r\n")
	if want := "GET https://shop.example/x.php?a=b shop.example PHPSESSID=abc <nil> " + large + "\n"; body != want {
		t.Errorf("got %.100q (%d bytes), want %.100q (%d bytes)", body, len(body), want, len(want))
	}
}

func TestTheClientTakesNoCutResponse(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		theirs.Write(appendRecord(nil, 6, []byte("Status: 200 OK\r\n\r\n")))
		theirs.Close()
	}()
	c := &client{conn: ours}
	if err := c.receive(io.Discard, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got error %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func dialHandler(t *testing.T, handler http.HandlerFunc) *client {
	addr := rig.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "fcgi.sock")}
	l, err := net.Listen(addr.Network, addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	go fcgi.Serve(l, handler)
	t.Cleanup(func() { l.Close() })
	c, err := dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func TestParamsAreAsLargeAsNginxs(t *testing.T) {
	size := 0
	for _, p := range nginxParams("/var/www/html", "/index.php", "", "0123456789abcdef0123456789") {
		size += len(p[0]) + len(p[1]) + 2
	}
	if size < 1100 || size > 1400 {
		t.Errorf("got %d bytes, want about 1.2 KB", size)
	}
}
