package tests

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What a web server that is no good gets, while the others are served.

// others asks for pages through nginx as long as the test runs, and fails it if one of them is not served.
func (s *stack) others(t *testing.T) {
	t.Helper()
	stop := make(chan struct{})
	var asking sync.WaitGroup
	var served atomic.Int64
	for range 2 {
		asking.Go(func() {
			session := newSession()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.get("/work.php", session).failure(); err != nil {
					t.Errorf("another request is harmed: %v", err)
				}
				served.Add(1)
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		asking.Wait()
		if served.Load() == 0 {
			t.Error("no other request was made")
		}
	})
}

// answer is what the gate sends to a conn.
type answer struct {
	stdout, stderr string
	appStatus      uint32
	status         fcgi.ProtocolStatus
	ended          bool  // there was an end request
	err            error // how the conn ended before it
}

// readAnswer reads until the end of request 1, or of the conn.
func readAnswer(nc net.Conn) answer { return readAnswerOf(nc, 1) }

// readAnswerOf reads until the end of a request, or of the conn.
func readAnswerOf(nc net.Conn, id uint16) (a answer) {
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	for {
		var header [8]byte
		if _, a.err = io.ReadFull(nc, header[:]); a.err != nil {
			return a
		}
		h := fcgi.ParseHeader(header[:])
		if h.Version != 1 {
			a.err = errors.New("the response is broken off")
			return a
		}
		record := make([]byte, h.ContentLength+h.PaddingLength)
		if _, a.err = io.ReadFull(nc, record); a.err != nil {
			return a
		}
		content := record[:h.ContentLength]
		switch {
		case h.RequestID != id:
		case h.Type == fcgi.TypeStdout:
			a.stdout += string(content)
		case h.Type == fcgi.TypeStderr:
			a.stderr += string(content)
		case h.Type == fcgi.TypeEndRequest:
			a.appStatus, a.status, a.ended = binary.BigEndian.Uint32(content), fcgi.ProtocolStatus(content[4]), true
			return a
		}
	}
}

// stillOpen reports whether the gate still waits for the conn. Nothing else is a clear end.
func (a answer) stillOpen() bool {
	var timeout net.Error
	return errors.As(a.err, &timeout) && timeout.Timeout()
}

// badRecords are streams that no web server sends, from the record on that is wrong; what comes before is right.
func badRecords(s *stack) map[string][]byte {
	begin := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	head := slices.Concat(begin, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, helloParams(s)), fcgi.AppendRecord(nil, fcgi.TypeParams, 1, nil))
	stdin := fcgi.AppendRecord(nil, fcgi.TypeStdin, 1, []byte("body"))
	end := fcgi.AppendRecord(nil, fcgi.TypeStdin, 1, nil)
	return map[string][]byte{
		"no FastCGI":                        []byte("POST / HTTP/1.0\r\n\r\n"),
		"version 0":                         {0, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0},
		"begin request twice":               slices.Concat(begin, begin),
		"an empty begin request":            fcgi.AppendRecord(nil, fcgi.TypeBeginRequest, 1, nil),
		"an unknown role":                   fcgi.AppendBeginRequest(nil, 1, 77, false),
		"end request of a web server":       slices.Concat(begin, fcgi.AppendEndRequest(nil, 1, 0, 0)),
		"data before the params end":        slices.Concat(begin, fcgi.AppendRecord(nil, fcgi.TypeData, 1, []byte("x"))),
		"a pair longer than its record":     slices.Concat(begin, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, []byte("\x80\x00\x10\x00\x01ab")), fcgi.AppendRecord(nil, fcgi.TypeParams, 1, nil)),
		"an abort in the head":              slices.Concat(begin, fcgi.AppendRecord(nil, fcgi.TypeAbortRequest, 1, nil)),
		"a version that changes":            slices.Concat(head, []byte{3, 5, 0, 1, 0, 4, 0, 0}, []byte("body")),
		"params behind the head":            slices.Concat(head, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, helloParams(s))),
		"a second begin request, same id":   slices.Concat(head, stdin, begin),
		"data for a responder":              slices.Concat(head, fcgi.AppendRecord(nil, fcgi.TypeData, 1, []byte("x"))),
		"stdin behind its end":              slices.Concat(head, stdin, end, stdin),
		"get values that are cut short":     slices.Concat(head, stdin, fcgi.AppendRecord(nil, fcgi.TypeGetValues, 0, []byte("\x0f"))),
		"a management record of no meaning": slices.Concat(head, fcgi.AppendRecord(nil, 250, 0, []byte("?")), stdin),
	}
}

// Each bad record, cut at every byte, is what a web server has sent when it says that this was all. The gate has to
// come to an end with it, whatever it is.
func TestBadRecordsCutAtEveryByteComeToAnEnd(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStack(t, stackOptions{Gate: rig.GateOptions{Listen: network, Settings: `head_timeout = "20s"`}})
		before := baseline(t, s)
		t.Cleanup(func() { eventually(t, "nothing is left open", func() bool { return files(t, s) <= before }) })
		s.others(t)
		for name, bad := range badRecords(s) {
			for n := range len(bad) + 1 {
				nc := s.dial(t)
				if _, err := nc.Write(bad[:n]); err != nil {
					t.Fatalf("%s, cut at %d: %v", name, n, err)
				}
				if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Fatalf("%s, cut at %d: %v", name, n, err)
				}
				if got := readAnswer(nc); got.stillOpen() {
					t.Errorf("%s, cut at %d: the gate does not end the conn", name, n)
				}
				_ = nc.Close()
			}
		}
	})
}

// The same bytes in two parts get the same answer as in one.
func TestRefusalsDoNotDependOnHowTheBytesCome(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `max_params = "4KiB"`}})
	s.others(t)
	begin := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	long := fcgi.AppendRecord(nil, fcgi.TypeParams, 1, fcgi.AppendPair(nil, "X", strings.Repeat("x", 4<<10)))
	conns := 0
	for _, c := range []struct {
		name   string
		bytes  []byte
		status fcgi.ProtocolStatus
		reason string
	}{
		{"an unknown role", fcgi.AppendBeginRequest(nil, 1, 77, true), fcgi.StatusUnknownRole, "unknown role 77"},
		{"params over the limit", slices.Concat(begin, long), fcgi.StatusOverloaded, "params are too large: more than 4096 bytes"},
		{"a request that begins twice", slices.Concat(begin, begin), fcgi.StatusRequestComplete, "begins twice"},
		{"stdin too early", slices.Concat(begin, fcgi.AppendRecord(nil, fcgi.TypeStdin, 1, []byte("x"))), fcgi.StatusRequestComplete, "record of type 5"},
	} {
		for n := range min(len(c.bytes), 40) + 1 {
			nc := s.dial(t)
			if _, err := nc.Write(c.bytes[:n]); err != nil {
				t.Fatal(err)
			}
			// The rest may find the conn closed already: the answer tells.
			_, _ = nc.Write(c.bytes[n:])
			got := readAnswer(nc)
			if !got.ended || got.appStatus == 0 || got.status != c.status || !strings.Contains(got.stderr, c.reason) || got.stdout != "" {
				t.Errorf("%s, cut at %d: got %+v, want status %d because of %q", c.name, n, got, c.status, c.reason)
			}
			_ = nc.Close()
		}
		conns += min(len(c.bytes), 40) + 1
	}
	refused := func() int {
		lines, more := loggedOf(s.Gate.Log(), "conn refused")
		return lines + more
	}
	eventually(t, "each refused conn is logged or counted", func() bool { return refused() >= conns })
	if n := refused(); n > conns {
		t.Errorf("%d refused conns are logged and counted, want %d", n, conns)
	}
}

func TestBadStdinEndsItsRequestAndNotItsScript(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	s.others(t)
	session := newSession()
	nc := s.dial(t)
	params := fcgi.AppendPair(nil, "SCRIPT_FILENAME", s.DocRoot+"/wait.php")
	params = fcgi.AppendPair(params, "QUERY_STRING", "mark=held")
	params = fcgi.AppendPair(params, "REQUEST_METHOD", "GET")
	params = fcgi.AppendPair(params, "HTTP_COOKIE", "PHPSESSID="+session)
	request := slices.Concat(fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true), fcgi.AppendRecord(nil, fcgi.TypeParams, 1, params),
		fcgi.AppendRecord(nil, fcgi.TypeParams, 1, nil)) // the end of stdin is still to come
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	awaitMark(t, s.Rig, "held.started")
	if _, err := nc.Write([]byte("what a pity")); err != nil {
		t.Fatal(err)
	}
	if got := readAnswer(nc); !got.ended || !strings.Contains(got.stderr, "malformed FastCGI") {
		t.Errorf("got %+v, want the reason on stderr", got)
	}
	next := s.begin("/note.php?mark=ran&say=next", session)
	time.Sleep(50 * time.Millisecond)
	if marked(s.Rig, "ran") {
		t.Error("the next request of the session ran concurrently with the script")
	}
	letGo(t, s.Rig, "held")
	(<-next).mustBe(t, "next\n")
}

func TestSecondRequestOnABusyConnIsServedAfterTheFirst(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	request := helloRequest(s, newSession())
	request[10] = 1 // keep conn
	second := slices.Clone(request)
	for b := second; len(b) > 0; b = b[fcgi.ParseHeader(b).Len():] {
		b[3] = 2 // the request id
	}
	nc := s.dial(t)
	if _, err := nc.Write(slices.Concat(request[:16], second, request[16:])); err != nil {
		t.Fatal(err)
	}
	page := s.get("/hello.php", "").body
	for id := range uint16(2) {
		if got := readAnswerOf(nc, id+1); !got.ended || !strings.HasSuffix(got.stdout, page) {
			t.Errorf("request %d: got %+v, want the page", id+1, got)
		}
	}
}

func TestSilentConnsAreEnded(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `
  head_timeout = "2s"
  idle_timeout = "2s"`}})
	s.others(t)
	var silent []net.Conn
	for range 20 {
		silent = append(silent, s.dial(t))
	}
	kept := s.dial(t)
	request := helloRequest(s, newSession())
	request[10] = 1 // keep conn
	if _, err := kept.Write(request); err != nil {
		t.Fatal(err)
	}
	if got := readAnswer(kept); !got.ended {
		t.Errorf("got %+v, want the page", got)
	}
	for _, nc := range append(silent, kept) {
		if got := readAnswer(nc); got.err != io.EOF {
			t.Errorf("got %+v, want a clean end", got)
		}
	}
	if log := s.Gate.Log(); strings.Contains(log, "[WARN]") {
		t.Errorf("conns that said nothing are told as something bad:\n%s", log)
	}
}

// A web server that asks without end and never reads harms itself.
func TestWebServersThatReadNothingHarmNobody(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{PHP: rig.PHPOptions{Workers: 6}})
	before := baseline(t, s)
	t.Run("while the others are served", func(t *testing.T) {
		s.others(t)
		flood := fcgi.AppendRecord(nil, fcgi.TypeGetValues, 0, fcgi.AppendPair(nil, "FCGI_MPXS_CONNS", ""))
		flood = slices.Repeat(flood, 1000)
		big := fcgi.AppendPair(nil, "SCRIPT_FILENAME", s.DocRoot+"/big.php")
		big = fcgi.AppendPair(big, "QUERY_STRING", "mb=20")
		big = fcgi.AppendPair(big, "REQUEST_METHOD", "GET")
		response := slices.Concat(fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true), fcgi.AppendRecord(nil, fcgi.TypeParams, 1, big),
			fcgi.AppendRecord(nil, fcgi.TypeParams, 1, nil), fcgi.AppendRecord(nil, fcgi.TypeStdin, 1, nil))
		for _, bytes := range [][]byte{flood, response, slices.Concat(response, flood), slices.Concat(response[:len(response)-8], flood)} {
			nc := s.dial(t)
			// Until the other end takes nothing more of it.
			for {
				_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err := nc.Write(bytes); err != nil {
					break
				}
				if len(bytes) == len(response) {
					break // a second one would not be FastCGI
				}
			}
		}
		s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	})
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}

// More conns than it may have files: those that are there are served, and the others when there is room again.
func TestGateThatIsOutOfFilesGoesOn(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	before := baseline(t, s)
	kept := s.dial(t)
	limit := unix.Rlimit{Cur: uint64(before + 12), Max: uint64(before + 12)}
	if err := unix.Prlimit(s.Gate.Pid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 40 {
		conns = append(conns, s.dial(t))
	}
	awaitLog(t, s.Gate.Server, "accept failed, retrying")
	for _, nc := range conns[:5] {
		_ = nc.Close()
	}
	if _, err := kept.Write(helloRequest(s, newSession())); err != nil {
		t.Fatal(err)
	}
	// It is answered if there is a file left for a connection to PHP-FPM, and else ended, so that the web server can
	// ask another.
	if got := readAnswer(kept); !got.ended && !errors.Is(got.err, io.EOF) && !errors.Is(got.err, syscall.ECONNRESET) {
		t.Errorf("a conn that was there got %+v, want an answer or the end", got)
	}
	for _, nc := range conns[5:] {
		_ = nc.Close()
	}
	eventually(t, "requests are served again", func() bool { return s.get("/hello.php", newSession()).failure() == nil })
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
}
