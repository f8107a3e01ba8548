package admin

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// stream opens a stream of events.
func (c *client) stream() (*http.Response, <-chan LocksPage) {
	c.t.Helper()
	resp, err := c.Get(c.base + "/events")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	pages := make(chan LocksPage, 1000)
	go func() {
		defer close(pages)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<24)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var page LocksPage
				if json.Unmarshal([]byte(data), &page) == nil {
					pages <- page
				}
			}
		}
	}()
	return resp, pages
}

// until takes events until one of them is so.
func until(t *testing.T, what string, pages <-chan LocksPage, so func(LocksPage) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case page, ok := <-pages:
			if !ok {
				t.Fatalf("the stream ended before it came to pass: %s", what)
			}
			if so(page) {
				return
			}
		case <-deadline:
			t.Fatalf("no event showed that %s", what)
		}
	}
}

func locksAre(n int) func(LocksPage) bool {
	return func(p LocksPage) bool { return len(p.Locks) == n }
}

func TestEventsTellEachChange(t *testing.T) {
	s := newStand(t)
	resp, pages := s.listen("tcp").stream()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type: got %q", got)
	}
	until(t, "nothing is held", pages, locksAre(0))
	l := s.hold(keys[0], "/export.php")
	until(t, "it is held", pages, locksAre(1))
	s.wait(keys[0], "/poll.php")
	until(t, "a request waits", pages, func(p LocksPage) bool { return len(p.Locks) == 1 && len(p.Locks[0].Waiters) == 1 })
	l.Release()
	until(t, "nothing is held", pages, locksAre(0))
}

func TestEventsTellOfPauses(t *testing.T) {
	s := newStand(t)
	c := s.listen("tcp")
	_, pages := c.stream()
	paused := func(is bool) func(LocksPage) bool {
		return func(p LocksPage) bool {
			return is == (p.Pause != nil && len(p.Pause.Gates) == 1 && p.Pause.Gates[0].Gate == "www" && p.Pause.Gates[0].Until != "")
		}
	}
	until(t, "no gate is paused", pages, paused(false))
	for _, step := range []struct {
		method, query string
		paused        bool
	}{{"PUT", "?for=1h", true}, {"DELETE", "", false}} {
		if status, text := c.ask(step.method, "/pause"+step.query, ""); status != http.StatusOK {
			t.Fatalf("%s: got %d and %s", step.method, status, text)
		}
		until(t, "the pause has begun or ended", pages, paused(step.paused))
	}
}

// TestAChangeOfAPauseIsAnEvent compares pages, as without a change an event comes now and then anyway.
func TestAChangeOfAPauseIsAnEvent(t *testing.T) {
	of := func(previous bool, waiting int) LocksPage {
		return LocksPage{Pause: &PausePage{Gates: []Pause{{Gate: "www", Waiting: waiting}}, Previous: previous}}
	}
	pages := []LocksPage{{}, of(false, 0), of(false, 1), of(true, 1)}
	for i, p := range pages {
		for j, q := range pages {
			if got, want := p.alike(&q), i == j; got != want {
				t.Errorf("pages %d and %d are alike: got %t, want %t", i, j, got, want)
			}
		}
	}
	if p, q := of(false, 1), of(false, 1); !p.alike(&q) {
		t.Error("two pages of one pause are not alike")
	}
}

func TestAStreamBegunLaterTellsWhatIsNow(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	_, first := c.stream()
	until(t, "nothing is held", first, locksAre(0))
	s.hold(keys[0], "/export.php")
	until(t, "it is held", first, locksAre(1))
	_, second := c.stream()
	until(t, "it is held", second, locksAre(1))
}

func TestTooManyStreamsAreRefusedAndNothingElse(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	var open []*http.Response
	for range maxStreams {
		resp, err := c.Get(c.base + "/events")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp)
	}
	if status, text := c.ask("GET", "/events", ""); status != http.StatusServiceUnavailable {
		t.Errorf("got %d and %q, want 503", status, text)
	}
	if status, _ := c.ask("GET", "/locks", ""); status != http.StatusOK {
		t.Errorf("locks: got %d, want 200", status)
	}
	for _, resp := range open {
		resp.Body.Close()
	}
	await(t, "there is room for a stream again", func() bool {
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
		return s.feed.streams == 0 && !s.feed.running
	})
	_, pages := c.stream()
	until(t, "nothing is held", pages, locksAre(0))
}

func TestTooManyConnsAreClosed(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	transport := c.Transport.(*http.Transport)
	for range maxConns {
		nc, err := transport.DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
	}
	nc, err := transport.DialContext(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetReadDeadline(time.Now().Add(patience))
	if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("got %d bytes and error %v of one conn too many, want its end", n, err)
	} else if err, ok := err.(interface{ Timeout() bool }); ok && err.Timeout() {
		t.Error("one conn too many is left open")
	}
}

func TestCloseEndsTheStreams(t *testing.T) {
	s := newStand(t)
	_, pages := s.listen("unix").stream()
	until(t, "nothing is held", pages, locksAre(0))
	s.Close()
	for deadline := time.After(patience); ; {
		select {
		case _, open := <-pages:
			if !open {
				return
			}
		case <-deadline:
			t.Fatal("the stream goes on")
		}
	}
}

// TestAClientThatReadsNothingDelaysNoOther opens a stream and never reads, while events are large and many.
func TestAClientThatReadsNothingDelaysNoOther(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	for range 20 {
		nc, err := c.Transport.(*http.Transport).DialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write([]byte("GET /events HTTP/1.1\r\nHost: gate\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	_, pages := c.stream()
	until(t, "nothing is held", pages, locksAre(0))
	s.hold(keys[0], "/export.php")
	long := "/" + strings.Repeat("x", 100_000) // much more than a socket holds
	for n := 1; n <= 4; n++ {
		s.wait(keys[0], long)
		until(t, "one more waits", pages, func(p LocksPage) bool { return len(p.Locks) == 1 && len(p.Locks[0].Waiters) == n })
	}
	if status, _ := c.ask("GET", "/healthz", ""); status != http.StatusOK {
		t.Errorf("got status %d while the streams are open", status)
	}
}
