package gate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// fromBrowser are params by which a browser says that it calls the site's own page from a script.
var fromBrowser = []string{"HTTP_SEC_FETCH_SITE", "same-origin", "HTTP_SEC_FETCH_MODE", "cors"}

func inSession(id string, params ...string) []string { return append(session(id), params...) }

// setsID is a response that sets another session id.
func setsID(id, body string) string {
	return "Set-Cookie: PHPSESSID=" + id + "; path=/\r\n" + page + body
}

// wantSentBack checks that a request is redirected to its own address, and returns its header.
func (b *browser) wantSentBack(t *testing.T) {
	t.Helper()
	got := b.wantStatus("307")
	for _, line := range []string{"Location: ./page?secret=1\r\n", "Cache-Control: no-store\r\n"} {
		if !strings.Contains(got.header+"\r\n", line) {
			t.Errorf("%s: got the header %q, want %q in it", b.name, got.header, line)
		}
	}
	if strings.Contains(got.header, "Set-Cookie") || strings.Contains(got.header+got.body, "new") && !strings.Contains(got.body, "renewed") {
		t.Errorf("%s: got %+v, which tells the new id", b.name, got)
	}
	if got.stderr != "" {
		t.Errorf("%s: the web server's log has %q", b.name, got.stderr)
	}
}

func TestBrowserThatHasWaitedForAReplacedIDIsSentBack(t *testing.T) {
	sameOrigin := func(more ...string) []string { return append(fromBrowser[:4:4], more...) }
	for name, c := range map[string]struct {
		params   []string
		edit     func(*Options)
		sentBack bool
	}{
		"fetch":                          {sameOrigin(), nil, true},
		"fetch with a body":              {sameOrigin("REQUEST_METHOD", "POST", "CONTENT_LENGTH", "0"), nil, true},
		"fetch with a stream":            {sameOrigin("REQUEST_METHOD", "POST", "CONTENT_LENGTH", ""), nil, false},
		"HEAD":                           {sameOrigin("REQUEST_METHOD", "HEAD"), nil, true},
		"a page":                         {[]string{"HTTP_SEC_FETCH_SITE", "none", "HTTP_SEC_FETCH_MODE", "navigate"}, nil, true},
		"a page from another site":       {[]string{"HTTP_SEC_FETCH_SITE", "cross-site", "HTTP_SEC_FETCH_MODE", "navigate"}, nil, true},
		"an image of another site":       {[]string{"HTTP_SEC_FETCH_SITE", "cross-site", "HTTP_SEC_FETCH_MODE", "no-cors"}, nil, true},
		"fetch from another origin":      {[]string{"HTTP_SEC_FETCH_SITE", "same-site", "HTTP_SEC_FETCH_MODE", "cors"}, nil, false},
		"an old browser":                 {[]string{"HTTP_USER_AGENT", "Mozilla/5.0"}, nil, true},
		"an old browser, same origin":    {[]string{"HTTP_USER_AGENT", "Mozilla/5.0", "HTTP_ORIGIN", "http://x:80", "HTTP_HOST", "X:80"}, nil, true},
		"an old browser, another origin": {[]string{"HTTP_USER_AGENT", "Mozilla/5.0", "HTTP_ORIGIN", "http://y", "HTTP_HOST", "x"}, nil, false},
		"an origin that is not told":     {[]string{"HTTP_USER_AGENT", "Mozilla/5.0", "HTTP_ORIGIN", "null", "HTTP_HOST", "x"}, nil, false},
		"curl":                           {[]string{"HTTP_USER_AGENT", "curl/8.0"}, nil, false},
		"nothing is known of it":         {nil, nil, false},
		"a reader":                       {sameOrigin(), func(o *Options) { o.Routes = []Route{{Methods: []string{"GET"}, Policy: read(o.Policy)}} }, true},
		"the policy says no":             {sameOrigin(), func(o *Options) { o.Policy.OnRotation = OnRotationPass }, false},
		"an id that is in no cookie":     {sameOrigin("APP_ID", "old"), func(o *Options) { o.Param = "APP_ID" }, false},
		"dots for an address":            {sameOrigin("REQUEST_URI", "/a/%2e%2E"), nil, false},
		"another host for an address":    {sameOrigin("REQUEST_URI", `/\evil`), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, c.edit)
			params := inSession("old", c.params...)
			if strings.HasPrefix(name, "an id") {
				params = c.params
			}
			holder := s.ask(append(params[:len(params):len(params)], "REQUEST_METHOD", "LOGIN")...)
			login := s.php.next()
			waiter := s.ask(params...)
			s.waiters(1)
			login.end(setsID("new", "in"))
			if c.sentBack {
				waiter.wantSentBack(t)
				s.php.none(t)
			} else {
				s.php.next().end(page + "old")
				waiter.want("old")
			}
			holder.want("in")
			s.unlocked()
			want := map[bool]uint64{true: 1}[c.sentBack]
			total := uint64(0)
			for _, r := range s.Stats().Routes {
				total += r.Outcomes[OutcomeRedirected]
			}
			if total != want {
				t.Errorf("%d requests are counted as redirected, want %d", total, want)
			}
		})
	}
}

// No browser would come back with a new cookie for a request that was left. It has the old id, as without the gate.
func TestRequestThatWasLeftIsNotSentBack(t *testing.T) {
	s := newStand(t, nil)
	holder := s.ask(session("old")...)
	login := s.php.next()
	post := append(fromBrowser[:4:4], "REQUEST_METHOD", "POST", "CONTENT_LENGTH", "0")
	waiter := s.ask(inSession("old", post...)...)
	s.waiters(1)
	waiter.Close()
	time.Sleep(60 * time.Millisecond) // the hang-up is noticed by then
	login.end(setsID("new", "in"))
	holder.want("in")
	s.php.next().end(page)
	s.unlocked()
}

func read(p Policy) Policy {
	p.Mode = Read
	return p
}

func TestWaitersAreNotSentBackWithoutANewID(t *testing.T) {
	for name, header := range map[string]string{
		"no cookie":      "",
		"the same id":    "Set-Cookie: PHPSESSID=old; path=/\r\n",
		"another cookie": "Set-Cookie: theme=new\r\n",
		"a logout":       "Set-Cookie: PHPSESSID=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0\r\n",
	} {
		s := newStand(t, nil)
		s.ask(inSession("old", fromBrowser...)...)
		login := s.php.next()
		waiter := s.ask(inSession("old", fromBrowser...)...)
		s.waiters(1)
		login.end(header + page + "x")
		s.php.next().end(page + name)
		waiter.want(name)
	}
}

// TestClientThatKeepsNoCookiesIsServedInTheEnd comes back with its old id again and again. It is sent back often enough
// for a browser that is late, and less often than browsers give up, which is 20 times.
func TestClientThatKeepsNoCookiesIsServedInTheEnd(t *testing.T) {
	s := newStand(t, nil)
	s.ask(inSession("old", fromBrowser...)...)
	login := s.php.next()
	waiter := s.ask(inSession("old", fromBrowser...)...)
	s.waiters(1)
	login.end(setsID("new", ""))
	waiter.wantSentBack(t)
	for n := 1; ; n++ {
		b := s.ask(inSession("old", fromBrowser...)...)
		got := b.gets()
		select {
		case script := <-s.php.running:
			script.end(page + "old")
			if r := <-got; r.body != "old" || n < 2 || n > 12 {
				t.Errorf("got %+v after being sent back %d times", r, n)
			}
			return
		case <-got:
		}
	}
}

func TestRequestThatHasNotWaitedIsNotSentBack(t *testing.T) {
	s := newStand(t, nil)
	s.ask(inSession("old", fromBrowser...)...)
	s.php.next().end(setsID("new", ""))
	s.unlocked()
	late := s.ask(inSession("old", fromBrowser...)...)
	s.php.next().end(page + "late")
	late.want("late")
}

// TestCookieThatChangesWithEveryResponseSendsBackTwice has an application encrypt its cookie anew for every response,
// as Laravel does: a browser that comes back meets the next change.
func TestCookieThatChangesWithEveryResponseSendsBackTwice(t *testing.T) {
	s := newStand(t, nil)
	const n = 5
	for round := range 5 {
		id, renewed := fmt.Sprint("id", round), fmt.Sprint("id", round+1)
		s.ask(inSession(id, fromBrowser...)...)
		holder := s.php.next()
		var waiters []*browser
		for range n {
			waiters = append(waiters, s.ask(inSession(id, fromBrowser...)...))
			s.waiters(len(waiters))
		}
		holder.end(setsID(renewed, ""))
		for _, w := range waiters {
			if round < maxGenerations {
				w.wantSentBack(t)
				continue
			}
			s.php.next().end(page + "x")
			w.want("x")
		}
	}
}

// TestWatchedSessionThatIsDestroyedKeepsItsWaiters has PHP close the session before its script has ended: whether the
// waiters may go on depends on whether the session is still there.
func TestWatchedSessionThatIsDestroyedKeepsItsWaiters(t *testing.T) {
	for name, c := range map[string]struct {
		destroyed bool
		header    string
		sentBack  bool
	}{
		"closed":                           {false, "", false},
		"closed, and an id set later":      {false, "Set-Cookie: PHPSESSID=fresh\r\n", false},
		"destroyed":                        {true, "", false},
		"destroyed, and another id is set": {true, "Set-Cookie: PHPSESSID=fresh\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil)
			holder := s.ask(inSession("old", fromBrowser...)...)
			login := s.php.next()
			php.open("old")
			waiter := s.ask(inSession("old", fromBrowser...)...)
			s.waiters(1)
			php.mu.Lock()
			php.all["old"].destroyed = c.destroyed
			php.mu.Unlock()
			php.close("old")
			if !c.destroyed {
				s.php.next().end(page + "waiter")
				waiter.want("waiter")
			} else {
				await(t, "the waiter has its turn", func() bool { return len(s.locks.Snapshot()) == 1 && len(s.locks.Snapshot()[0].Waiters) == 0 })
				s.php.none(t)
			}
			login.end(c.header + page + "in")
			holder.want("in")
			switch {
			case c.sentBack:
				waiter.wantSentBack(t)
			case c.destroyed:
				s.php.next().end(page + "waiter")
				waiter.want("waiter")
			}
			s.unlocked()
			await(t, "nothing is remembered of sessions that were closed", func() bool {
				s.rotations.mu.Lock()
				defer s.rotations.mu.Unlock()
				return len(s.rotations.closed) == 0
			})
		})
	}
}

func TestRotationsForget(t *testing.T) {
	var rs rotations
	key := func(n int) (k sessionlock.Key) {
		k[0], k[1], k[2] = byte(n), byte(n>>8), byte(n>>16)
		return k
	}
	rotate := func(n int) *rotation {
		r := &rotates{key: key(2 * n)}
		rs.rotate(r, key(2*n+1))
		rs.leave(r)
		return r.rotation
	}
	for n := range maxRotations {
		rotate(n)
	}
	if got := len(rs.recent); got > maxRotations+1 || got != len(rs.order) {
		t.Errorf("%d are remembered, and %d in order", got, len(rs.order))
	}
	if rot, _ := rs.during(key(0), time.Now().Add(-time.Hour), nil); rot == nil {
		t.Error("the first is not remembered")
	}
	if rot := rotate(maxRotations + 1); rot != nil {
		t.Error("one too many is noted")
	}
	for i := range rs.order {
		rs.order[i].at = time.Now().Add(-2 * rotationMemory)
	}
	if rot := rotate(maxRotations + 2); rot == nil || len(rs.recent) != 2 || len(rs.order) != 2 {
		t.Errorf("after their time %d are remembered, want 2", len(rs.recent))
	}
}

func TestAddressIsRelativeToItself(t *testing.T) {
	for target, want := range map[string]string{
		"/page": "./page", "/a/b/page.php?x=1&y": "./page.php?x=1&y", "/": "./", "/a/": "./", "/a/?": "./?", "/a?/b/c": "./a?/b/c",
		"/a:b": "./a:b", "//evil.example": "./evil.example", "/a//": "./", "/%2e%2e%2f": "./%2e%2e%2f",
		"": "", "*": "", "page": "", "http://evil.example": "", "/..": "", "/a/.": "", "/.%2E?x": "",
		`/\evil`: "", "/a b": "", "/a\r\nSet-Cookie: x": "", "/a#b": "", "/\x7f": "", "/?x=\t": "",
	} {
		if got := sameAddress(target); got != want {
			t.Errorf("%q: got %q, want %q", target, got, want)
		}
	}
}
