package tests

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
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
