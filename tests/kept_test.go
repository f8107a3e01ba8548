package tests

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestAConnIsKeptThoughItsStdinEndsLate does what Apache does: the end of stdin
// comes on its own, and PHP-FPM, which has the whole body, has answered by then.
func TestAConnIsKeptThoughItsStdinEndsLate(t *testing.T) {
	t.Parallel()
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		s := newStack(t, stackOptions{Gate: rig.GateOptions{Listen: network}})
		nc, err := net.Dial(s.Gate.Addr.Network, s.Gate.Addr.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := nc.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
			t.Fatal(err)
		}
		body := "posted"
		want := fmt.Sprintf("%d %x\n", len(body), sha256.Sum256([]byte(body)))
		end := []byte(nil) // of the stdin before
		for i := range 20 {
			id := uint16(1 + i%2)
			if _, err := nc.Write(append(end, postWithoutEnd(s, id, body)...)); err != nil {
				t.Fatalf("%s, request %d: %v", network.Network, i, err)
			}
			if got := stdoutOf(t, nc, id); !strings.HasSuffix(got, "\r\n\r\n"+want) {
				t.Fatalf("%s, request %d: got %q, want %q", network.Network, i, got, want)
			}
			end = fcgi.AppendRecord(nil, fcgi.TypeStdin, id, nil)
		}
	}
}

// postWithoutEnd is a POST to upload.php whose stdin has yet to end.
func postWithoutEnd(s *stack, id uint16, body string) []byte {
	var params []byte
	for _, p := range [][2]string{
		{"REQUEST_METHOD", "POST"}, {"SCRIPT_NAME", "/upload.php"}, {"SCRIPT_FILENAME", s.DocRoot + "/upload.php"},
		{"CONTENT_TYPE", "text/plain"}, {"CONTENT_LENGTH", fmt.Sprint(len(body))},
	} {
		params = fcgi.AppendPair(params, p[0], p[1])
	}
	b := fcgi.AppendBeginRequest(nil, id, fcgi.RoleResponder, true)
	b = fcgi.AppendStream(b, fcgi.TypeParams, id, params)
	b = fcgi.AppendRecord(b, fcgi.TypeParams, id, nil)
	return fcgi.AppendStream(b, fcgi.TypeStdin, id, []byte(body))
}

// stdoutOf reads a response up to its end request.
func stdoutOf(t *testing.T, nc io.Reader, id uint16) string {
	t.Helper()
	var stdout strings.Builder
	for {
		var header [8]byte
		if _, err := io.ReadFull(nc, header[:]); err != nil {
			t.Fatalf("after %q: %v", stdout.String(), err)
		}
		h := fcgi.ParseHeader(header[:])
		record := make([]byte, h.ContentLength+h.PaddingLength)
		if _, err := io.ReadFull(nc, record); err != nil {
			t.Fatal(err)
		}
		switch {
		case h.RequestID != id:
			t.Fatalf("got a record of request %d, want %d", h.RequestID, id)
		case h.Type == fcgi.TypeStdout:
			stdout.Write(record[:h.ContentLength])
		case h.Type == fcgi.TypeEndRequest:
			return stdout.String()
		}
	}
}

// TestALongHeaderBlockArrivesWhole on every request, though PHP sends it in parts and its connection has served other
// requests before.
func TestALongHeaderBlockArrivesWhole(t *testing.T) {
	t.Parallel()
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		s := newStack(t, stackOptions{PHP: rig.PHPOptions{Listen: network}, Gate: rig.GateOptions{Listen: network}})
		for _, bytes := range []int{0, 5_000, 9_000, 40_000, 70_000} {
			first := ""
			for i := range 6 {
				id := uint16(1 + 4*(i%3))
				nc, err := net.Dial(s.Gate.Addr.Network, s.Gate.Addr.Address)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				mustDo(t, nc.SetDeadline(time.Now().Add(requestTimeout)))
				if _, err := nc.Write(getOf(s, id, "headers.php", fmt.Sprintf("bytes=%d", bytes))); err != nil {
					t.Fatal(err)
				}
				got := stdoutOf(t, nc, id)
				if first == "" {
					first = got
				}
				if got != first || !strings.HasPrefix(got, "Status: 201") || !strings.HasSuffix(got, "\r\n\r\nheaders\n") || len(got) < bytes {
					t.Errorf("%s, %d bytes, request %d: got %d bytes, %.40q to %.20q, want %d, as for the first one",
						network.Network, bytes, i, len(got), got, got[max(0, len(got)-20):], len(first))
				}
			}
		}
	}
}

// getOf is a GET of a script.
func getOf(s *stack, id uint16, script, query string) []byte {
	var params []byte
	for _, p := range [][2]string{
		{"REQUEST_METHOD", "GET"}, {"SCRIPT_NAME", "/" + script}, {"SCRIPT_FILENAME", s.DocRoot + "/" + script},
		{"QUERY_STRING", query},
	} {
		params = fcgi.AppendPair(params, p[0], p[1])
	}
	b := fcgi.AppendBeginRequest(nil, id, fcgi.RoleResponder, true)
	b = fcgi.AppendStream(b, fcgi.TypeParams, id, params)
	b = fcgi.AppendRecord(b, fcgi.TypeParams, id, nil)
	return fcgi.AppendRecord(b, fcgi.TypeStdin, id, nil)
}

// TestARequestOfAKeptConnRunsOnce though its worker dies: nginx sends a GET again
// whose kept conn ends before the response has begun. Stderr is no response.
func TestARequestOfAKeptConnRunsOnce(t *testing.T) {
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStack(t, stackOptions{Gate: rig.GateOptions{Listen: network}, Site: rig.Site{Keepalive: 8}})
		for _, errors := range []int{0, 1, 50, 2000} {
			for range 3 { // the conn is kept now
				s.get("/hello.php", "").mustBe(t, "hello\n")
			}
			mark := fmt.Sprint("kept", errors)
			if r := s.get(fmt.Sprintf("/once.php?mark=%s&say=x&errors=%d", mark, errors), newSession()); r.status != http.StatusBadGateway {
				t.Errorf("%d errors: got status %d and error %v, want 502", errors, r.status, r.err)
			}
			if got := notes(t, s.Rig, mark); len(got) != 1 {
				t.Errorf("%d errors: the script ran %d times", errors, len(got))
			}
		}
	})
}
