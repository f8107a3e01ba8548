package fcgi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
)

// readHeads reads requests from pieces until an error, and describes each by its head and its stdin.
func readHeads(limits Limits, pieces [][]byte) (heads []string, web *memory, err error) {
	web = &memory{pieces: pieces}
	c := connOn(web, limits)
	defer c.Close()
	for {
		r, err := c.Next()
		if err != nil {
			return heads, web, err
		}
		head := fmt.Sprintf("id %d role %d keep %t", r.ID, r.Role, r.KeepConn)
		for name, value := range r.Params.All() {
			head += fmt.Sprintf(" %s=%s", name, value)
		}
		stdin, err := readStdin(r)
		if err != nil {
			return heads, web, err
		}
		heads = append(heads, head+" stdin "+stdin)
		r.finish()
	}
}

// readStdin takes all of a request's stdin, as what came with its head and then as a feed does.
func readStdin(r *Request) (string, error) {
	forward, err := r.takeStdin()
	if err != nil {
		return "", err
	}
	all := string(forward)
	rest := append([]byte(nil), r.rest...)
	for !r.stdin.whole() {
		b := make([]byte, 100)
		if err := r.conn.in.take(); err != nil {
			return all, err
		}
		n, err := r.conn.in.look(b)
		if err != nil {
			return all, err
		}
		forward, rest, err = r.stdin.scan(append(rest, b[:n]...))
		if err != nil {
			return all, err
		}
		all += string(forward)
	}
	r.rest = append([]byte(nil), rest...)
	var content string
	for len(all) > 0 {
		h := ParseHeader([]byte(all))
		content += all[headerLen : headerLen+h.ContentLength]
		all = all[h.Len():]
	}
	return content, nil
}

func TestHeadsAreReadWhateverTheCuts(t *testing.T) {
	getValues := AppendRecord(nil, TypeGetValues, 0, pairsOf("FCGI_MPXS_CONNS", "", "FCGI_MAX_REQS", ""))
	values := AppendRecord(nil, TypeGetValuesResult, 0, pairsOf("FCGI_MPXS_CONNS", "0"))
	pairs := [][]byte{padded(TypeParams, 1, string(pairsOf("A", "1")), 3), padded(TypeParams, 1, string(pairsOf("B", "2", "A", "3")), 0)}
	end := AppendRecord(nil, TypeParams, 1, nil)
	for _, c := range []struct {
		name    string
		in      []byte
		behind  []byte // what comes when the request is over
		replies []byte
		heads   []string
	}{
		{name: "nothing"},
		{
			name:  "a request without params",
			in:    requestOf(300, false, ""),
			heads: []string{"id 300 role 1 keep false stdin "},
		},
		{
			name:  "params in two records, with padding",
			in:    joined(padded(TypeBeginRequest, 1, "\x00\x01\x01\x00\x00\x00\x00\x00", 9), pairs[0], pairs[1], padded(TypeParams, 1, "", 200), stdinOf(1, "body")),
			heads: []string{"id 1 role 1 keep true A=1 B=2 A=3 stdin body"},
		},
		{
			name:    "management records before, in between and behind",
			in:      joined(getValues, AppendBeginRequest(nil, 1, RoleResponder, true), pairs[0], getValues, padded(77, 0, "?", 1), end, getValues, stdinOf(1, "x"), getValues),
			heads:   []string{"id 1 role 1 keep true A=1 stdin x"},
			replies: joined(values, values, appendUnknownType(nil, 77), values, values),
		},
		{
			name:   "requests one behind the other",
			in:     requestOf(1, true, "one", "A", "1"),
			behind: requestOf(1, false, "two", "A", "2"),
			heads:  []string{"id 1 role 1 keep true A=1 stdin one", "id 1 role 1 keep false A=2 stdin two"},
		},
		{
			name:  "a second request in the head of the first",
			in:    joined(AppendBeginRequest(nil, 1, RoleResponder, true), AppendBeginRequest(nil, 2, RoleResponder, true), paramsOf(2, "X", "x"), pairs[0], stdinOf(2, "x"), end, stdinOf(1, "")),
			heads: []string{"id 1 role 1 keep true A=1 stdin ", "id 2 role 1 keep true X=x stdin x"},
		},
		{
			name: "three requests, record by record in turn",
			in: joined(AppendBeginRequest(nil, 1, RoleResponder, true), AppendBeginRequest(nil, 3, RoleResponder, true), AppendBeginRequest(nil, 2, RoleResponder, true),
				paramsOf(2, "X", "2"), getValues, paramsOf(3, "X", "3"), paramsOf(1, "X", "1"), padded(TypeStdin, 3, "th", 3), padded(TypeStdin, 1, "on", 1),
				stdinOf(2, "two"), stdinOf(1, "e"), stdinOf(3, "ree")),
			heads:   []string{"id 1 role 1 keep true X=1 stdin one", "id 3 role 1 keep true X=3 stdin three", "id 2 role 1 keep true X=2 stdin two"},
			replies: values,
		},
		{
			name:  "requests with the same id before the first is over",
			in:    joined(requestOf(1, true, "one"), requestOf(1, true, "two"), requestOf(1, true, "three")),
			heads: []string{"id 1 role 1 keep true stdin one", "id 1 role 1 keep true stdin two", "id 1 role 1 keep true stdin three"},
		},
		{
			name:  "records of no request before it",
			in:    joined(stdinOf(5, "late"), AppendRecord(nil, TypeAbortRequest, 5, nil), requestOf(1, true, "")),
			heads: []string{"id 1 role 1 keep true stdin "},
		},
		{
			name:   "an authorizer, which gets no stdin",
			in:     joined(AppendBeginRequest(nil, 1, RoleAuthorizer, true), paramsOf(1, "A", "1")),
			behind: requestOf(2, true, ""),
			heads:  []string{"id 1 role 2 keep true A=1 stdin ", "id 2 role 1 keep true stdin "},
		},
		{
			name:   "an authorizer whose stdin ends all the same",
			in:     joined(AppendBeginRequest(nil, 1, RoleAuthorizer, true), paramsOf(1)),
			behind: joined(AppendRecord(nil, TypeStdin, 1, nil), requestOf(1, true, "")),
			heads:  []string{"id 1 role 2 keep true stdin ", "id 1 role 1 keep true stdin "},
		},
	} {
		everyCut(c.in, func(cut string, pieces [][]byte) {
			heads, web, err := readHeads(Limits{MaxParams: 1000}, append(pieces, c.behind))
			if err != io.EOF {
				t.Errorf("%s, %s: ended with %v, want EOF", c.name, cut, err)
			}
			if got, want := strings.Join(heads, "; "), strings.Join(c.heads, "; "); got != want {
				t.Errorf("%s, %s: got %s, want %s", c.name, cut, got, want)
			}
			if got := web.written.String(); got != string(c.replies) {
				t.Errorf("%s, %s: replied %q, want %q", c.name, cut, got, c.replies)
			}
		})
	}
}

func TestHeadsThatCannotBeServedAreRefused(t *testing.T) {
	begin := AppendBeginRequest(nil, 1, RoleResponder, true)
	a := AppendRecord(nil, TypeParams, 1, pairsOf("A", strings.Repeat("a", 60)))
	half := pairsOf("A", "1234")
	for _, c := range []struct {
		name   string
		in     []byte
		want   error
		reason string
		status ProtocolStatus
		silent bool // there is no request yet that could be answered
	}{
		{name: "a role that there is not", in: joined(AppendBeginRequest(nil, 1, 4, true), paramsOf(1)), want: ErrUnknownRole, reason: "unknown role 4", status: StatusUnknownRole},
		{name: "role 0", in: AppendBeginRequest(nil, 1, 0, true), want: ErrUnknownRole, reason: "unknown role 0", status: StatusUnknownRole},
		{name: "a begin request twice", in: joined(begin, begin), want: ErrMalformed, reason: "request 1 begins twice"},
		{name: "a begin request of seven bytes", in: AppendRecord(nil, TypeBeginRequest, 1, make([]byte, 7)), want: ErrMalformed, silent: true},
		{name: "a second one of nine bytes", in: joined(begin, AppendRecord(nil, TypeBeginRequest, 2, make([]byte, 9))), want: ErrMalformed, reason: "9 bytes of content, want 8"},
		{name: "stdin before the params have ended", in: joined(begin, a, stdinOf(1, "")), want: ErrMalformed, reason: "record of type 5 before the params have ended"},
		{name: "stdout from a web server", in: joined(begin, AppendRecord(nil, TypeStdout, 1, nil)), want: ErrMalformed, reason: "record of type 6"},
		{name: "params of 124 bytes, where 100 are allowed", in: joined(begin, a, a), want: ErrParamsTooLarge, reason: "more than 100 bytes", status: StatusOverloaded},
		{name: "a record of the largest length", in: joined(begin, []byte{1, 4, 0, 1, 255, 255, 255, 0}), want: ErrParamsTooLarge, reason: "more than 100 bytes", status: StatusOverloaded},
		{name: "a pair that spans two records", in: joined(begin, AppendRecord(nil, TypeParams, 1, half[:4]), AppendRecord(nil, TypeParams, 1, half[4:]), paramsOf(1)), want: ErrMalformed, reason: "cut short"},
		{name: "an abort request in the head", in: joined(begin, a, AppendRecord(nil, TypeAbortRequest, 1, nil)), want: ErrHungUp, reason: "hung up"},
		{name: "version 0", in: []byte{0, 1, 0, 1, 0, 8, 0, 0}, want: ErrMalformed, silent: true},
		{name: "HTTP", in: []byte("GET / HTTP/1.1\r\n\r\n"), want: ErrMalformed, silent: true},
		{name: "version 2 in the middle of a head", in: joined(begin, []byte{2, 4, 0, 1, 0, 0, 0, 0}), want: ErrMalformed, reason: "version 2, want 1"},
		{name: "get values that are cut short", in: joined(begin, AppendRecord(nil, TypeGetValues, 0, []byte("\x09\x00x"))), want: ErrMalformed, reason: "get values: malformed FastCGI: name-value pair"},
	} {
		everyCut(c.in, func(cut string, pieces [][]byte) {
			heads, web, err := readHeads(Limits{MaxParams: 100}, pieces)
			name := c.name + ", " + cut
			if !errors.Is(err, c.want) || len(heads) > 0 {
				t.Fatalf("%s: got %v and %q, want %v", name, err, heads, c.want)
			}
			if c.silent {
				if web.written.Len() > 0 {
					t.Errorf("%s: replied %q, want nothing", name, web.written.Bytes())
				}
				return
			}
			got, err := readResponse(&web.written, 1)
			if err != nil || got.status != c.status || got.stdout != "" || !strings.Contains(got.stderr, c.reason) {
				t.Errorf("%s: got %+v and %v, want status %d and stderr with %q", name, got, err, c.status, c.reason)
			}
		})
	}
}

func TestHeadThatIsCutShortIsAnUnexpectedEnd(t *testing.T) {
	in := joined(AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1, "A", "1"))
	for i := 1; i < len(in); i++ {
		if _, _, err := readHeads(Limits{}, [][]byte{in[:i:i]}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: got %v, want ErrUnexpectedEOF", i, err)
		}
	}
}

func TestTinyParamsRecordsTakeNoMoreMemoryThanAllowed(t *testing.T) {
	in := AppendBeginRequest(nil, 1, RoleResponder, true)
	record := padded(TypeParams, 1, "\x00\x00", maxPadding)
	for len(in) < 1<<20 {
		in = append(in, record...)
	}
	_, _, err := readHeads(Limits{MaxParams: 100_000}, [][]byte{in})
	if !errors.Is(err, ErrParamsTooLarge) {
		t.Errorf("got %v, want ErrParamsTooLarge: padding and heads of records take memory too", err)
	}
}

// FuzzConn feeds anything to a conn: the request that it finds first must not depend on the cuts.
func FuzzConn(f *testing.F) {
	f.Add(requestOf(1, true, "one", "A", "1"), []byte{0, 7, 30})
	f.Add(joined(AppendRecord(nil, TypeGetValues, 0, pairsOf("FCGI_MPXS_CONNS", "")), AppendBeginRequest(nil, 1, RoleFilter, true), paramsOf(1), stdinOf(1, "")), []byte{9})
	f.Add(AppendBeginRequest(nil, 1, 9, true), []byte{})
	f.Add(joined(AppendBeginRequest(nil, 1, 1, true), AppendBeginRequest(nil, 2, 1, true), paramsOf(1, "A", strings.Repeat("a", 200))), []byte{200, 200})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		whole, err := readFirst([][]byte{bytes.Clone(in)})
		pieces, errToo := readFirst(cutAt(bytes.Clone(in), cuts))
		if whole != pieces {
			t.Errorf("in pieces: got %q, want %q", pieces, whole)
		}
		for _, kind := range []error{ErrMalformed, ErrParamsTooLarge, ErrUnknownRole, ErrHungUp, io.ErrUnexpectedEOF} {
			if errors.Is(err, kind) != errors.Is(errToo, kind) {
				t.Errorf("in pieces: got %v, want %v", errToo, err)
			}
		}
	})
}

// readFirst reads the head of a request from pieces, and describes it.
func readFirst(pieces [][]byte) (string, error) {
	c := connOn(&memory{pieces: pieces}, Limits{MaxParams: 500})
	defer c.Close()
	r, err := c.Next()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d %t %q", r.ID, r.Role, r.KeepConn, flat(r.Params)), nil
}

// newConn returns a conn and its web server.
func newConn(t testing.TB, network string, limits Limits) (*Conn, *peer) {
	t.Helper()
	server, client := netpolltest.Pair(t, network)
	c, err := NewConn(server, limits)
	if err != nil {
		t.Fatal(err)
	}
	return c, newPeer(t, client)
}

func next(c *Conn) func() error {
	return func() error { _, err := c.Next(); return err }
}

func TestSilentWebServerIsIdle(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, _ := newConn(t, network, Limits{HeadTimeout: 30 * time.Millisecond, IdleTimeout: time.Hour})
		if err := waitFor(t, "a head that never comes", next(c)); err != ErrIdle {
			t.Errorf("got %v, want ErrIdle", err)
		}
	})
}

func TestHeadByteByByteHasToComeInTime(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{HeadTimeout: 100 * time.Millisecond})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, b := range requestOf(1, true, "", "A", strings.Repeat("a", 10_000)) {
				if _, err := web.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		if err := waitFor(t, "a head that comes too slowly", next(c)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a deadline that is exceeded", err)
		}
		c.Close()
		receive(t, "the end of the slow web server", done)
	})
}

func TestKeptConnMayIdleForAsLongAsItMay(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{HeadTimeout: 200 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
		web.send(requestOf(1, true, ""))
		serveAnswer(t, c, "first")
		web.response(1)
		if err := waitFor(t, "a second request that never comes", next(c)); err != ErrIdle {
			t.Errorf("got %v, want ErrIdle", err)
		}
	})
}

func TestKeptConnGetsTheWholeHeadTimeoutForItsNextHead(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{HeadTimeout: 50 * time.Millisecond, IdleTimeout: time.Hour})
		web.send(requestOf(1, true, ""))
		serveAnswer(t, c, "first")
		web.response(1)
		web.send(requestOf(1, true, "")[:9])
		if err := waitFor(t, "the rest of a second head", next(c)); !errors.Is(err, os.ErrDeadlineExceeded) || err == ErrIdle {
			t.Errorf("got %v, want a deadline that is exceeded", err)
		}
	})
}

// serveAnswer reads the next request and answers it.
func serveAnswer(t testing.TB, c *Conn, body string) *Request {
	t.Helper()
	r, err := c.Next()
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	if err := r.Respond(Answer{Header: []byte("Status: 200\r\n"), Body: []byte(body)}); err != nil {
		t.Fatalf("respond: %v", err)
	}
	return r
}

func TestWebServerThatClosesItsConnIsAtItsEnd(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		web.send(requestOf(1, true, "body", "A", "a"))
		if r := serveAnswer(t, c, "x"); !r.Reusable() {
			t.Error("the conn is not reusable, want it to be")
		}
		web.response(1)
		web.Close()
		if err := waitFor(t, "the end", next(c)); err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
	})
}

func TestConnOfNoSocketIsRefused(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := NewConn(a, Limits{}); err == nil {
		t.Error("got a conn on a pipe, want an error")
	}
}

// TestAConnDoesNotKeepTheMemoryOfALargeRequest: it may be idle for hours after that.
func TestAConnDoesNotKeepTheMemoryOfALargeRequest(t *testing.T) {
	long := strings.Repeat("x", 60_000)
	for name, c := range map[string]struct {
		request []byte
		others  int // requests that come early
	}{
		"params":                   {requestOf(1, true, "", "A", long), 0},
		"params of many records":   {joined(AppendBeginRequest(nil, 1, RoleResponder, true), paramsRecords(8, long), stdinOf(1, "")), 0},
		"a body":                   {requestOf(1, true, long), 0},
		"requests that come early": {joined(requestOf(1, true, ""), requestOf(2, true, long), requestOf(3, true, long)), 2},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, network string) {
				conn, web := newConn(t, network, Limits{})
				go web.send(c.request)
				for range 1 + c.others {
					r, err := conn.Next()
					if err != nil {
						t.Fatal(err)
					}
					r.AwaitBody(1<<20, patience)
					if err := r.Respond(Answer{}); err != nil {
						t.Fatal(err)
					}
					web.response(r.ID)
				}
				web.send(requestOf(9, true, "", "A", "small"))
				r, err := conn.Next()
				if err != nil {
					t.Fatal(err)
				}
				if got := string(r.Params.Get("A")); r.ID != 9 || got != "small" {
					t.Errorf("got request %d with %q", r.ID, got)
				}
				if n := len(conn.buf.b); n > middleBuffer || conn.aliased != nil {
					t.Errorf("got a buffer of %d bytes and %v, want at most %d", n, conn.aliased, middleBuffer)
				}
			})
		})
	}
}

// paramsRecords are n params records with a long value each, and the end of the stream.
func paramsRecords(n int, value string) (b []byte) {
	for range n {
		b = AppendRecord(b, TypeParams, 1, pairsOf("A", value))
	}
	return AppendRecord(b, TypeParams, 1, nil)
}
