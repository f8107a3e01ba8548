package tests

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What a web server that is no good can do to the others: nothing.

// wireSettings are the settings of a gate that has little patience.
const wireSettings = `
  head_timeout = "2s"
  max_params   = "8KiB"
`

func TestWhatIsNotFastCGIEndsItsOwnConn(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: wireSettings}})
	before := baseline(t, s)
	begun := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	params := fcgi.AppendRecord(nil, fcgi.TypeParams, 1, helloParams(s))
	ending := fcgi.AppendRecord(nil, fcgi.TypeParams, 1, nil)
	for name, bytes := range map[string][]byte{
		"another protocol":              []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"version 2":                     {2, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0},
		"a begin request of 7 bytes":    fcgi.AppendRecord(nil, fcgi.TypeBeginRequest, 1, make([]byte, 7)),
		"a begin request of 9 bytes":    fcgi.AppendRecord(nil, fcgi.TypeBeginRequest, 1, make([]byte, 9)),
		"a request that begins twice":   slices.Concat(begun, begun),
		"an unknown role":               fcgi.AppendBeginRequest(nil, 1, 9, true),
		"stdin before the params end":   slices.Concat(begun, params, fcgi.AppendRecord(nil, fcgi.TypeStdin, 1, nil)),
		"stdout of a web server":        slices.Concat(begun, params, fcgi.AppendRecord(nil, fcgi.TypeStdout, 1, []byte("x"))),
		"a pair that is cut short":      slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, []byte("\x05\x05ab")), ending),
		"a length that is cut short":    slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, []byte("\xff\xff")), ending),
		"a pair that spans two records": slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, []byte("\x01\x04ab")), fcgi.AppendRecord(nil, fcgi.TypeParams, 1, []byte("cde")), ending),
		"too many params":               slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, fcgi.AppendPair(nil, "X", strings.Repeat("x", 9<<10))), ending),
		"get values that are cut short": fcgi.AppendRecord(nil, fcgi.TypeGetValues, 0, []byte("\x0fx")),
		"params of no request":          params,
		"nothing":                       nil,
	} {
		t.Run(name, func(t *testing.T) {
			nc := s.dial(t)
			if _, err := nc.Write(bytes); err != nil {
				t.Fatal(err)
			}
			s.get("/hello.php", newSession()).mustBe(t, s.get("/hello.php", "").body)
			awaitEnd(t, nc)
		})
	}
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

func TestARequestThatIsCutAtAnyByteHarmsNobody(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: wireSettings}})
	before := baseline(t, s)
	session := newSession()
	whole := helloRequest(s, session)
	for n := range len(whole) {
		nc := s.dial(t)
		if _, err := nc.Write(whole[:n]); err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
	}
	s.get("/hello.php", session).mustBe(t, s.get("/hello.php", "").body)
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

func TestARequestThatComesByteByByte(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	nc := s.dial(t)
	for _, b := range helloRequest(s, newSession()) {
		if _, err := nc.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	got, err := io.ReadAll(nc)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(s.get("/hello.php", "").body); !strings.Contains(string(got), want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}

func TestAClientThatSendsAByteNowAndThenIsEnded(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: wireSettings}})
	nc := s.dial(t)
	for _, b := range helloRequest(s, newSession()) {
		if _, err := nc.Write([]byte{b}); err != nil {
			return // the gate has closed it
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("the whole request was taken, which took more than its head_timeout")
}

func TestAThousandIdleConnsAreNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	before, idle := baseline(t, s), sockets(t, s)
	conns := make([]net.Conn, 1000)
	for i := range conns {
		conns[i] = s.dial(t)
	}
	eventually(t, "all are accepted", func() bool { return sockets(t, s) >= idle+len(conns) })
	s.get("/hello.php", newSession()).mustBe(t, s.get("/hello.php", "").body)
	for _, nc := range conns {
		_ = nc.Close()
	}
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

func TestManagementRecordsAreAnswered(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	nc := s.dial(t)
	ask := fcgi.AppendRecord(nil, fcgi.TypeGetValues, 0, fcgi.AppendPair(nil, "FCGI_MPXS_CONNS", ""))
	ask = fcgi.AppendRecord(ask, 99, 0, []byte("what is that?"))
	want := fcgi.AppendRecord(nil, fcgi.TypeGetValuesResult, 0, fcgi.AppendPair(nil, "FCGI_MPXS_CONNS", "0"))
	want = fcgi.AppendRecord(want, fcgi.TypeUnknownType, 0, []byte{99, 0, 0, 0, 0, 0, 0, 0})
	if _, err := nc.Write(ask); err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// dial connects to the gate as a web server does.
func (s *stack) dial(t testing.TB) net.Conn {
	t.Helper()
	nc, err := net.Dial(s.Gate.Addr.Network, s.Gate.Addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// awaitEnd reads until the gate ends the conn.
func awaitEnd(t testing.TB, nc net.Conn) {
	t.Helper()
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := io.Copy(io.Discard, nc); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the gate does not end the conn: %v", err)
	}
}

// helloParams are the params of a request for hello.php.
func helloParams(s *stack) []byte {
	b := fcgi.AppendPair(nil, "SCRIPT_FILENAME", filepath.Join(s.DocRoot, "hello.php"))
	b = fcgi.AppendPair(b, "SCRIPT_NAME", "/hello.php")
	return fcgi.AppendPair(b, "REQUEST_METHOD", "GET")
}

// helloRequest is a whole request for hello.php.
func helloRequest(s *stack, session string) []byte {
	b := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, false)
	b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, fcgi.AppendPair(helloParams(s), "HTTP_COOKIE", fmt.Sprintf("PHPSESSID=%s", session)))
	b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, nil)
	return fcgi.AppendRecord(b, fcgi.TypeStdin, 1, nil)
}
