package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/browser"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestWaitersAreNotLoggedOutByANewID has a page give its session another id while eight requests of the browser wait
// with the old one, with the gate and without: with PHP's own sessions in files and in memcached, watched or not, with
// locks in the process and in memcached, and whether PHP knows the old session afterwards or not.
func TestWaitersAreNotLoggedOutByANewID(t *testing.T) {
	for _, c := range []struct {
		handler, session, store string
	}{
		{"files", "", "local"},
		{"files", "files", "local"},
		{"memcached", "", "local"},
		{"memcached", "memcached", "local"},
		{"files", "", "memcached"},
		{"files", "files", "memcached"},
		{"memcached", "memcached", "memcached"},
	} {
		for _, strict := range []string{"1", "0"} {
			name := fmt.Sprintf("%s, watched as %q, locks %s, strict %s", c.handler, c.session, c.store, strict)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newRotationStack(t, c.handler, c.session, c.store, strict)
				for _, destroy := range []string{"1", "0"} {
					gated := s.rotate(t, s.Site, "gated"+destroy, destroy)
					straight := s.rotate(t, s.straight, "straight"+destroy, destroy)
					if gated.in != rotationWaiters || !gated.after {
						t.Errorf("delete=%s: with the gate %+v, want %d logged in, and afterwards too", destroy, gated, rotationWaiters)
					}
					if straight.in > gated.in || straight.after && !gated.after {
						t.Errorf("delete=%s: with the gate %+v, without it %+v", destroy, gated, straight)
					}
					t.Logf("delete=%s: with the gate %+v, without it %+v", destroy, gated, straight)
				}
			})
		}
	}
}

const rotationWaiters = 8

// rotationStack is a stack whose PHP-FPM a second site reaches without the gate.
type rotationStack struct {
	*stack
	straight *rig.Site
}

func newRotationStack(t *testing.T, handler, watched, store, strict string) *rotationStack {
	r := newRig(t, "nginx", "php-fpm", "memcached", "php-memcached")
	php := rig.PHPOptions{Workers: 2 + 2*rotationWaiters, INI: map[string]string{}}
	if handler == "memcached" {
		php.INI = rig.MemcachedSessions(rigtest.Start(t, r.Memcached, rig.StoreOptions{}))
		php.INI["memcached.sess_lock_retries"] = "10000"
		php.INI["memcached.sess_lock_wait_min"], php.INI["memcached.sess_lock_wait_max"] = "5", "5"
	}
	php.INI["session.use_strict_mode"] = strict
	s := &rotationStack{stack: &stack{Rig: r, PHP: rigtest.Start(t, r.PHPFPM, php)}}
	settings, config := queueRoutes(rotationWaiters), ""
	if watched != "" {
		path := s.PHP.Sessions
		if watched == "memcached" {
			path = php.INI["session.save_path"]
		}
		settings += fmt.Sprintf("\nsession {\n  handler = %q\n  save_path = %q\n  watch = %[1]q\n}", watched, path)
	}
	if store == "memcached" {
		locks := rigtest.Start(t, r.Memcached, rig.StoreOptions{})
		settings += "\nlock { store = \"memcached\" }"
		config = fmt.Sprintf("memcached { servers = [%q] }\n", locks.Addr.Address)
	}
	s.Gate = startGate(t, r, rig.GateOptions{Upstream: s.PHP.Addr, Settings: settings, Config: config})
	s.Site, s.straight = &rig.Site{FastCGI: s.Gate.Addr}, &rig.Site{FastCGI: s.PHP.Addr}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site, s.straight}})
	return s
}

// rotated is what became of a browser.
type rotated struct {
	in    int  // waiters that were logged in
	after bool // the browser is logged in afterwards
}

// rotate signs a browser in, has a page replace its session id while others wait, and looks what became of them.
func (s *rotationStack) rotate(t *testing.T, site *rig.Site, mark, destroy string) (got rotated) {
	t.Helper()
	b := newJarBrowser(t, site)
	id := b.get(t, "GET", "/signin.php", "")
	renewed := make(chan string, 1)
	go func() { renewed <- b.get(t, "GET", "/renew.php?mark="+mark+"&delete="+destroy, "") }()
	awaitMark(t, s.Rig, mark+".started")
	waiting := make(chan who, rotationWaiters)
	for i := range rotationWaiters {
		method, body := "GET", ""
		if i%2 == 1 {
			method, body = "POST", `{"say":"hello"}`
		}
		go func() { waiting <- b.who(t, method, body) }()
	}
	if site == s.Site {
		s.awaitQueue(t, id, rotationWaiters)
	} else {
		eventually(t, "the waiters are in PHP", func() bool {
			st, err := s.PHP.Status(t.Context())
			return err == nil && st.Active == 1+rotationWaiters
		})
	}
	letGo(t, s.Rig, mark)
	for range rotationWaiters {
		w := <-waiting
		if w.In {
			got.in++
		}
		if w.Method == "POST" && w.Say != "hello" {
			t.Errorf("a POST lost its body: %+v", w)
		}
	}
	if r := <-renewed; r != "in" {
		t.Errorf("the page that renews: got %q", r)
	}
	got.after = b.who(t, "GET", "").In
	return got
}

// who is what who.php says.
type who struct {
	In, Failed        bool
	Method, Say, Lock string
}

// jarBrowser is a client that keeps cookies and follows redirects, and says so.
type jarBrowser struct {
	*http.Client
	site *rig.Site
}

func newJarBrowser(t *testing.T, site *rig.Site) *jarBrowser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &jarBrowser{&http.Client{Jar: jar, Transport: client.Transport, Timeout: requestTimeout}, site}
}

func (b *jarBrowser) get(t *testing.T, method, path, body string) string {
	r, err := http.NewRequest(method, b.site.URL(path), strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return ""
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := b.Do(r)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s: got status %d, error %v and %q", method, path, resp.StatusCode, err, text)
	}
	return string(text)
}

func (b *jarBrowser) who(t *testing.T, method, body string) (w who) {
	text := b.get(t, method, "/who.php?a=b", body)
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Errorf("%v in %q", err, text)
	}
	return w
}

// TestEveryWebServerPassesTheRedirectOn: some rewrite a Location, or redirect by themselves.
func TestEveryWebServerPassesTheRedirectOn(t *testing.T) {
	for _, web := range webServers {
		t.Run(web.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, web.program, "php-fpm")
			s := &rotationStack{stack: &stack{Rig: r}}
			s.PHP = rigtest.Start(t, r.PHPFPM, rig.PHPOptions{
				Workers: 2 + rotationWaiters, INI: map[string]string{"session.use_strict_mode": "1"},
			})
			s.Gate = startGate(t, r, rig.GateOptions{Upstream: s.PHP.Addr, Settings: queueRoutes(rotationWaiters)})
			copyScript(t, r, "hello.php", fmt.Sprintf("queue/%d.php", rotationWaiters)) // some look whether it is there
			s.Site = &rig.Site{FastCGI: s.Gate.Addr}                                    // one connection for each request, so that all can wait at once
			web.start(t, r, s.Site)
			if got := s.rotate(t, s.Site, "web", "1"); got.in != rotationWaiters || !got.after {
				t.Errorf("got %+v, want %d logged in, and afterwards too", got, rotationWaiters)
			}
		})
	}
}

// TestBrowserComesBackWithItsNewCookie has a real browser wait in all ways in which it asks for a page, while its
// session gets another id.
func TestBrowserComesBackWithItsNewCookie(t *testing.T) {
	rounds := [][]string{ // five at once: a browser opens six connections to a host
		{"fetch", "fetchPost", "fetchForm", "fetchPut", "keepalive"},
		{"xhr", "events", "page", "form", "sameOrigin"},
		{"fetch", "fetch", "fetchPost", "fetchPost", "form"},
		{"page", "page", "xhr", "xhr", "keepalive"},
	}
	b := browser.Start(t)
	for _, watched := range []string{"", "files"} {
		for _, destroy := range []string{"1", "0"} {
			t.Run(fmt.Sprintf("watched as %q, destroyed %s", watched, destroy), func(t *testing.T) {
				s := newRotationStack(t, "files", watched, "local", "1")
				tab := b.Open(t, s.Site.URL("/stage.php"))
				for i, ways := range rounds {
					for n, w := range s.rotateInBrowser(t, tab, fmt.Sprint("round", i), destroy, ways) {
						if !w.In || w.Say != "hello" {
							t.Errorf("%s: got %+v", ways[n], w)
						}
					}
					if w := browser.Eval[who](t, tab, `ways.fetch()`); !w.In {
						t.Error("the browser is logged out afterwards")
					}
				}
				if got := browser.Eval[string](t, tab, `[...document.querySelectorAll("iframe")].map((f) => f.contentWindow.location.hash).join("")`); !strings.HasPrefix(got, "#here") {
					t.Errorf("the pages have lost their fragments: %q", got)
				}
			})
		}
	}
}

// TestFetchThatFollowsNoRedirect shows what a page gets that does not want to be redirected, and what on_rotation is
// for.
func TestFetchThatFollowsNoRedirect(t *testing.T) {
	b := browser.Start(t)
	for policy, failed := range map[string]bool{"redirect": true, "pass": false} {
		t.Run(policy, func(t *testing.T) {
			s := newRotationStack(t, "files", "", "local", "1")
			reload(t, s.Gate, strings.Replace(s.Gate.Config, "upstream", fmt.Sprintf("lock { on_rotation = %q }\nupstream", policy), 1))
			tab := b.Open(t, s.Site.URL("/stage.php"))
			for n, w := range s.rotateInBrowser(t, tab, "round", "0", []string{"error", "manual"}) {
				if w.Failed != failed || w.In == failed {
					t.Errorf("redirect %d: got %+v", n, w)
				}
			}
		})
	}
}

// rotateInBrowser is rotate for a browser, which waits in several ways at once. It returns what it was answered.
func (s *rotationStack) rotateInBrowser(t *testing.T, tab *browser.Tab, mark, destroy string, ways []string) []who {
	t.Helper()
	id := browser.Eval[string](t, tab, `document.cookie = "PHPSESSID=; max-age=0; path=/", fetch("/signin.php").then((r) => r.text())`)
	browser.Eval[bool](t, tab, fmt.Sprintf(`window.renewed = fetch("/renew.php?mark=%s&delete=%s").then((r) => r.text()), true`, mark, destroy))
	awaitMark(t, s.Rig, mark+".started")
	browser.Eval[bool](t, tab, fmt.Sprintf(`window.waiting = %q.split(" ").map((way) => ways[way]()), true`, strings.Join(ways, " ")))
	s.awaitQueue(t, id, len(ways))
	letGo(t, s.Rig, mark)
	if got := browser.Eval[string](t, tab, `window.renewed`); got != "in" {
		t.Errorf("the page that renews: got %q", got)
	}
	return browser.Eval[[]who](t, tab, `Promise.all(window.waiting)`)
}
