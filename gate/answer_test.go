package gate

import (
	"encoding/json"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

func TestAnswersThatTheGateGivesItself(t *testing.T) {
	short := func(o *Options) { o.Policy.MaxWait = time.Millisecond }
	for _, c := range []struct {
		name   string
		edit   func(*Options)
		busy   bool // another request holds the lock already
		status string
		reason string // on stderr
		retry  bool
		count  func(Stats) uint64
	}{
		{"max_wait exceeded", short, true, "503 Service Unavailable", "max_wait", true, func(s Stats) uint64 { return s.Rejected }},
		{"max_wait exceeded, with a status of one's own", func(o *Options) { short(o); o.Policy.Status = 429 }, true, "429 Too Many Requests", "max_wait", true, func(s Stats) uint64 { return s.Rejected }},
		{"max_wait exceeded, and nothing is said of retries", func(o *Options) { short(o); o.Policy.RetryAfter = 0 }, true, "503", "max_wait", false, func(s Stats) uint64 { return s.Rejected }},
		{"the lock expires", func(o *Options) { o.Policy.Expiry, o.Policy.OnExpiry = 10*time.Millisecond, OverdueAbort }, false, "504 Gateway Timeout", "expired", false, func(s Stats) uint64 { return s.Aborted }},
		{"all connections are busy", func(o *Options) {
			o.Upstream.MaxConnections, o.Upstream.QueueTimeout = 1, time.Millisecond
			o.Routes = []Route{{Policy: Policy{Mode: Off, RetryAfter: time.Second}}}
		}, true, "503 Service Unavailable", "busy", true, func(s Stats) uint64 { return s.Upstream }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t, c.edit)
			if c.busy {
				s.ask(session("one")...)
				holder := s.php.next()
				defer holder.die()
			}
			for accept, kind := range map[string]string{
				"": "text/html", "*/*": "text/html", "text/html,application/json": "text/html",
				"application/json": "application/json", "application/vnd.api+JSON; q=1": "application/json",
			} {
				before := c.count(s.Stats())
				got := s.ask(append(session("one"), "HTTP_ACCEPT", accept)...).wantStatus(c.status)
				if !strings.Contains(got.header, "Content-Type: "+kind) {
					t.Errorf("accept %q: got %q, want %s", accept, got.header, kind)
				}
				checkBody(t, got, kind)
				if !strings.HasPrefix(got.stderr, "fpm-gate: ") || !strings.Contains(got.stderr, c.reason) || !strings.HasSuffix(got.stderr, "\n") {
					t.Errorf("stderr is %q, want a line that names %q", got.stderr, c.reason)
				}
				if strings.Contains(got.header, "Retry-After: 1\r\n") != c.retry || strings.Contains(got.header, "Retry-After") != c.retry {
					t.Errorf("got header %q, want Retry-After to be there: %t", got.header, c.retry)
				}
				if after := c.count(s.Stats()); after != before+1 {
					t.Errorf("counted %d, want 1", after-before)
				}
				s.drop()
			}
		})
	}
}

// checkBody checks that a page is whole, and of its kind.
func checkBody(t *testing.T, r response, kind string) {
	t.Helper()
	if !strings.Contains(r.header+"\r\n", "Content-Length: "+strconv.Itoa(len(r.body))+"\r\n") {
		t.Errorf("a body of %d bytes has header %q", len(r.body), r.header)
	}
	if !strings.Contains(r.header, "Cache-Control: no-store") {
		t.Errorf("got header %q, want no-store", r.header)
	}
	if kind == "text/html" {
		if !strings.HasPrefix(r.body, "<!DOCTYPE html>") || !strings.HasSuffix(strings.TrimSpace(r.body), "</html>") {
			t.Errorf("got body %q, want a page", r.body)
		}
		return
	}
	var answer struct {
		Status int
		Error  string
	}
	if err := json.Unmarshal([]byte(r.body), &answer); err != nil || answer.Status < 400 || answer.Error == "" {
		t.Errorf("got body %q and %v, want JSON", r.body, err)
	}
}

// drop lets go of the requests that have reached the application.
func (s *stand) drop() {
	for {
		select {
		case script := <-s.php.running:
			script.die()
		default:
			return
		}
	}
}

func TestTooManyWaitersAreSentAwayAtOnce(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.MaxWaiters = 2 })
	s.ask(session("one")...)
	holder := s.php.next()
	a, b := s.ask(session("one")...), s.ask(session("one")...)
	s.waiters(2)
	s.ask(session("one")...).wantStatus("429 Too Many Requests")
	s.waiters(2)
	holder.end(page)
	for range 2 {
		s.php.next().end(page + "x")
	}
	a.want("x")
	b.want("x")
}

func TestHeadRequestGetsNoBody(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.MaxWait = 0 })
	s.ask(session("one")...)
	defer s.php.next().die()
	get := s.ask(session("one")...).wantStatus("503")
	head := s.ask(append(session("one"), "REQUEST_METHOD", "HEAD")...).wantStatus("503")
	if head.body != "" || head.header != get.header {
		t.Errorf("got %+v, want the header of %+v alone", head, get)
	}
}

func TestRetryAfterIsInWholeSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second: "1", 1500 * time.Millisecond: "2", time.Millisecond: "1", time.Minute: "60",
	} {
		s := newStand(t, func(o *Options) { o.Policy.MaxWait, o.Policy.RetryAfter = 0, d })
		s.ask(session("one")...)
		holder := s.php.next()
		if got := s.ask(session("one")...).wantStatus("503"); !strings.Contains(got.header, "Retry-After: "+want+"\r\n") {
			t.Errorf("%v: got %q, want %s", d, got.header, want)
		}
		holder.die()
	}
}

func TestConnIsKeptAfterAnAnswer(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.MaxWait = 0 })
	s.ask(session("one")...)
	defer s.php.next().die()
	b := s.ask(session("one")...)
	for range 3 {
		b.wantStatus("503")
		b.again(session("one")...)
	}
	b.wantStatus("503")
	b.again(session("two")...)
	s.php.next().end(page + "x")
	b.want("x")
}

func TestExpiryInTheMiddleOfAResponseBreaksIt(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.Expiry, o.Policy.OnExpiry = 30*time.Millisecond, OverdueAbort })
	b := s.ask(session("one")...)
	holder := s.php.next()
	holder.send(page + "half")
	if got := b.response(); got.err == nil || got.body != "half" {
		t.Errorf("got %+v, want half a response that does not look whole", got)
	}
	holder.die()
	await(t, "it is counted", func() bool { return s.Stats().Truncated == 1 })
}

// The web server sees what it would see of PHP-FPM itself, on a kept conn too.
func TestConnEndsWithoutAResponseWhilePHPFPMCannotBeReached(t *testing.T) {
	s := newStand(t, nil)
	b := s.ask(session("one")...)
	s.php.next().end(page + "x")
	b.want("x")
	s.Configure(s.options(func(o *Options) {
		o.Upstream.Addrs = []netaddr.Addr{{Network: "unix", Address: filepath.Join(t.TempDir(), "no-listener")}}
	}))
	b.again(session("one")...)
	for _, b := range []*browser{b, s.ask(session("one")...), s.ask()} {
		if got := b.response(); got != (response{err: io.EOF}) {
			t.Errorf("%s: got %+v, want the end of the conn", b.name, got)
		}
	}
	if got := s.Stats().Upstream; got != 3 {
		t.Errorf("counted %d, want 3", got)
	}
	if !strings.Contains(s.log.String(), "PHP-FPM cannot be reached") {
		t.Error("the log does not say so")
	}
	s.unlocked()
}

func TestWorkerThatDies(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Upstream.Reuse = 0 })
	b := s.ask(session("one")...)
	s.php.next().die()
	if got := b.response(); got != (response{err: io.EOF}) {
		t.Errorf("on a new conn: got %+v, want its end", got)
	}
	b = s.ask(session("one")...)
	s.php.next().end(page + "x")
	b.want("x")
	b.again(session("one")...)
	s.php.next().die()
	if got := b.wantStatus("502"); !strings.Contains(got.stderr, "PHP-FPM failed") {
		t.Errorf("on a kept conn: got stderr %q", got.stderr)
	}
	b = s.ask(session("one")...)
	script := s.php.next()
	script.send(page + "half")
	if _, _, _, err := readRecord(b); err != nil {
		t.Fatal(err)
	}
	script.die()
	if got := b.response(); got.err == nil {
		t.Errorf("got %+v, want a response that does not look whole", got)
	}
	s.unlocked()
	await(t, "one broken response and two failures are counted", func() bool {
		got := s.Stats()
		return got.Truncated == 1 && got.Upstream == 2
	})
}

func TestConnThatDoesNotSpeakFastCGIIsCounted(t *testing.T) {
	s := newStand(t, nil)
	b := s.ask()
	s.php.next().end(page + "x")
	b.want("x")
	if _, err := b.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := b.response(); got.err == nil {
		t.Errorf("got %+v, want an end", got)
	}
	await(t, "it is counted", func() bool { return s.Stats().Malformed == 1 })
}

func TestPOSTsThatAreDroppedWhileTheyWaitAreLoggedOnce(t *testing.T) {
	s := newStand(t, nil)
	const hint = "fastcgi_ignore_client_abort"
	s.ask(session("one")...)
	holder := s.php.next()
	for i, method := range []string{"GET", "POST", "POST"} {
		b := s.ask(append(session("one"), "REQUEST_METHOD", method)...)
		s.waiters(1)
		if _, err := b.Write(fcgi.AppendRecord(nil, fcgi.TypeAbortRequest, 1, nil)); err != nil {
			t.Fatal(err)
		}
		await(t, "it is counted", func() bool { return s.Stats().HungUp == uint64(i+1) })
		await(t, "it is logged", func() bool { return strings.Count(s.log.String(), hint) >= min(i, 1) })
	}
	if got := strings.Count(s.log.String(), hint); got != 1 {
		t.Errorf("logged %d times, want 1", got)
	}
	holder.die()
	s.ask(append(session("two"), "REQUEST_METHOD", "POST")...).Close() // this one has reached PHP
	s.php.next().die()
	s.php.none(t)
}

// TestAScriptThatDiesAfterStderrIsAnsweredOnAKeptConn: a web server may send the request again if such a conn ends before
// the response has begun, and its script would run twice.
func TestAScriptThatDiesAfterStderrIsAnsweredOnAKeptConn(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(*script)
		edit   func(*Options)
		status string
	}{
		"its worker dies":  {(*script).die, nil, "502"},
		"its lock expires": {func(*script) {}, func(o *Options) { o.Policy.OnExpiry, o.Policy.Expiry = OverdueAbort, 50*time.Millisecond }, "504"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, c.edit)
			b := s.ask()
			s.php.next().end(page)
			b.want("")
			b.again(session("one")...)
			script := s.php.next()
			_, _ = script.conn.Write(fcgi.AppendRecord(nil, fcgi.TypeStderr, script.id, []byte("PHP message\n")))
			c.end(script)
			if got := b.wantStatus(c.status); !strings.HasPrefix(got.stderr, "PHP message") {
				t.Errorf("got stderr %q", got.stderr)
			}
			b.again()
			s.php.next().end(page + "next")
			b.want("next")
		})
	}
}
