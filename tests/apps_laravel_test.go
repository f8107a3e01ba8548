package tests

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// appKey is one that Laravel would make, and previousKey one before it.
const (
	appKey      = "base64:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	previousKey = "base64:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
)

// illuminate is a site of Laravel's components, gated and straight, with one store of sessions.
type illuminate struct {
	*stack
	straight *rig.Site
	admin    operator
}

// onEachIlluminate runs a test with Laravel's sessions in files and in Redis. The config has no more than the lines of
// docs/APPLICATIONS.md, and those of more.
func onEachIlluminate(t *testing.T, more string, run func(*testing.T, *illuminate)) {
	for _, driver := range []string{"file", "redis"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			programs := []string{"illuminate"}
			if driver == "redis" {
				programs = append(programs, "redis-server", "php-redis")
			}
			r := newRig(t, append(programs, "nginx", "php-fpm")...)
			params := fmt.Sprintf("fastcgi_param APP_KEY %s; fastcgi_param SESSION_DRIVER %s; fastcgi_param SESSION_FILES %s;",
				appKey, driver, t.TempDir())
			if driver == "redis" {
				server := rigtest.Start(t, r.Redis, rig.StoreOptions{})
				params += "fastcgi_param REDIS_PORT " + server.Addr.Port() + ";"
			}
			s := &illuminate{stack: &stack{Rig: r}}
			s.PHP = rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 8, AllExtensions: true})
			block, admin := adminBlock(t)
			s.admin = admin
			s.Gate = startGate(t, r, rig.GateOptions{
				Upstream: s.PHP.Addr,
				Config:   block,
				Env:      []string{"APP_KEY=" + appKey, "APP_PREVIOUS_KEYS=" + previousKey},
				Settings: `session {
					application = "laravel"
					keys        = [env("APP_KEY"), env("APP_PREVIOUS_KEYS", "")]
				}
				` + more,
			})
			s.Site = &rig.Site{FastCGI: s.Gate.Addr, Settings: params, Unbuffered: true}
			s.straight = &rig.Site{FastCGI: s.PHP.Addr, Settings: params}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site, s.straight}})
			run(t, s)
			for _, never := range []string{strings.TrimPrefix(appKey, "base64:"), strings.TrimPrefix(previousKey, "base64:")} {
				if strings.Contains(s.Gate.Log(), never) {
					t.Error("the gate's log has a key in it")
				}
			}
		})
	}
}

// shopper is a browser at a site, which takes in a cookie from each response.
type shopper struct {
	t    testing.TB
	site *rig.Site
	jar  http.CookieJar
}

func newShopper(t testing.TB, site *rig.Site) *shopper {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &shopper{t, site, jar}
}

// cookie is the Cookie header that it would send now.
func (s *shopper) cookie() string {
	var pairs []string
	for _, c := range s.jar.Cookies(s.url()) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

func (s *shopper) url() *url.URL {
	u, err := url.Parse(s.site.URL("/"))
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// get asks for what the application does, and keeps the cookies of the response.
func (s *shopper) get(do string) response {
	s.t.Helper()
	r := ask(s.site, request{path: "/illuminate.php?do=" + do, header: map[string]string{"Cookie": s.cookie()}})
	s.take(r.header)
	if err := r.failure(); err != nil {
		s.t.Errorf("%s: %v", do, err)
	}
	return r
}

// take keeps the cookies of a response.
func (s *shopper) take(header http.Header) {
	s.jar.SetCookies(s.url(), (&http.Response{Header: header}).Cookies())
}

// begin is get with the cookies of now, in the background; it keeps none.
func (s *shopper) begin(do string) <-chan response {
	return begin(s.site, request{path: "/illuminate.php?do=" + do, header: map[string]string{"Cookie": s.cookie()}})
}

// TestNoUpdateOfALaravelSessionIsLost sends bursts of requests of one session, whose cookie differs from response to
// response, with the gate and without.
func TestNoUpdateOfALaravelSessionIsLost(t *testing.T) {
	const n = 40
	onEachIlluminate(t, "", func(t *testing.T, s *illuminate) {
		for site, gated := range map[*rig.Site]bool{s.Site: true, s.straight: false} {
			visitor := newShopper(t, site)
			visitor.get("count") // begins the session
			first := visitor.cookie()
			visitor.get("count")
			if visitor.cookie() == first {
				t.Fatal("the cookie is the same as before: this is not Laravel's")
			}
			var answers []<-chan response
			for i := range n {
				if i%2 == 0 {
					visitor.get("count") // has another cookie for the next ones
				}
				answers = append(answers, visitor.begin("count&ms=5"))
			}
			for _, answer := range answers {
				r := <-answer
				if err := r.failure(); err != nil {
					t.Error(err)
				}
				if got := r.header.Get("X-Lock") == "held"; got != gated {
					t.Errorf("gated %v: got the lock %q", gated, r.header.Get("X-Lock"))
				}
			}
			const want = 2 + n/2 + n + 1
			got, err := strconv.Atoi(visitor.get("count").body)
			switch lost := want - got; {
			case err != nil:
				t.Error(err)
			case gated && lost != 0:
				t.Errorf("with the gate %d of %d updates are lost", lost, want)
			case !gated && lost == 0:
				t.Error("without the gate no update is lost either: this test shows nothing")
			default:
				t.Logf("%s, gated %v: lost %d of %d", t.Name(), gated, lost, want)
			}
		}
	})
}

// TestALogoutOfLaravelIsNotUndone logs out while slower requests of the session run and wait.
func TestALogoutOfLaravelIsNotUndone(t *testing.T) {
	onEachIlluminate(t, "", func(t *testing.T, s *illuminate) {
		undone := map[bool]int{}
		for site, gated := range map[*rig.Site]bool{s.Site: true, s.straight: false} {
			for range 10 {
				visitor := newShopper(t, site)
				visitor.get("who")
				visitor.get("login&user=me")
				old := visitor.cookie()
				if got := visitor.get("who").body; got != "me" {
					t.Fatalf("after the login: got %q, want me", got)
				}
				slow := []<-chan response{visitor.begin("who&ms=60"), visitor.begin("who&ms=60")}
				out := visitor.begin("logout&ms=20")
				slow = append(slow, visitor.begin("who&ms=40"))
				for _, answer := range append(slow, out) {
					if err := (<-answer).failure(); err != nil {
						t.Error(err)
					}
				}
				r := ask(site, request{path: "/illuminate.php?do=who", header: map[string]string{"Cookie": old}})
				if r.body != "nothing" {
					undone[gated]++
				}
			}
		}
		if undone[true] > 0 {
			t.Errorf("with the gate %d of 10 logouts were undone", undone[true])
		}
		if undone[false] == 0 {
			t.Error("without the gate no logout was undone either: this test shows nothing")
		}
		t.Logf("%s: logouts lost without the gate: %d of 10; with it: %d of 10", t.Name(), undone[false], undone[true])
	})
}

// TestALoginOfLaravelIsFollowed: a request with the new cookie waits for the script that has set it.
func TestALoginOfLaravelIsFollowed(t *testing.T) {
	onEachIlluminate(t, `lock { release_on = "end" }`, func(t *testing.T, s *illuminate) {
		visitor := newShopper(t, s.Site)
		visitor.get("count")
		old := visitor.cookie()
		entering, err := open(s.Site, request{
			path: "/illuminate.php?do=enter&user=me&mark=enter", header: map[string]string{"Cookie": old},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer entering.Body.Close()
		awaitMark(t, s.Rig, "enter.started")
		visitor.take(entering.Header)
		answers := []<-chan response{visitor.begin("who"), begin(s.Site, request{
			path: "/illuminate.php?do=who", header: map[string]string{"Cookie": old},
		})}
		eventually(t, "a request waits for each of the two ids", func() bool {
			n := 0
			for _, lock := range s.admin.locks(t).Locks {
				n += len(lock.Waiters)
			}
			return n == 2
		})
		letGo(t, s.Rig, "enter")
		for i, want := range []string{"me", "nothing"} { // the old session is gone
			(<-answers[i]).mustBe(t, want)
		}
	})
}

// TestALaravelSessionIsFreeAtTheHeaders: what application = "laravel" sets. The session was saved by then, and a
// streamed body keeps no other request waiting.
func TestALaravelSessionIsFreeAtTheHeaders(t *testing.T) {
	onEachIlluminate(t, "", func(t *testing.T, s *illuminate) {
		visitor := newShopper(t, s.Site)
		visitor.get("count")
		stream := visitor.begin("stream&mark=stream")
		awaitMark(t, s.Rig, "stream.started")
		visitor.get("count").mustBe(t, "2")
		letGo(t, s.Rig, "stream")
		(<-stream).mustBe(t, "first\nlast\n")
	})
}

// TestALaravelCookieThatDoesNotOpenIsNoSession, and is counted.
func TestALaravelCookieThatDoesNotOpenIsNoSession(t *testing.T) {
	onEachIlluminate(t, `lock { server_timing = true }`, func(t *testing.T, s *illuminate) {
		visitor := newShopper(t, s.Site)
		visitor.get("count")
		good := strings.TrimPrefix(visitor.cookie(), "my_shop_session=")
		for name, c := range map[string]struct {
			cookie string
			locked bool
		}{
			"its own":            {"my_shop_session=" + good, true},
			"among others":       {"other_session=x; _ga=1; my_shop_session=" + good, true},
			"another name":       {"other_session=" + good, false},
			"an id":              {"my_shop_session=" + strings.Repeat("a", 40), false},
			"changed":            {"my_shop_session=" + good[:60] + "x" + good[61:], false},
			"8 KB":               {"my_shop_session=" + strings.Repeat("abcd", 1500), false},
			"two, the first bad": {"my_shop_session=x; my_shop_session=" + good, false}, // PHP takes the first
		} {
			r := ask(s.Site, request{path: "/illuminate.php?do=who", header: map[string]string{"Cookie": c.cookie}})
			if err := r.failure(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := r.header.Get("X-Lock") == "held"; got != c.locked {
				t.Errorf("%s: got lock %q, want locked %v", name, r.header.Get("X-Lock"), c.locked)
			}
		}
	})
}

// TestWrongKeysOfLaravelAreReported, and are shown nowhere.
func TestWrongKeysOfLaravelAreReported(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		PHP: rig.PHPOptions{AllExtensions: true},
		Gate: rig.GateOptions{
			Settings: "session {\napplication = \"laravel\"\nkeys = [\"" + previousKey + "\"]\n}\n",
		},
		Site: rig.Site{Settings: fmt.Sprintf("fastcgi_param APP_KEY %s; fastcgi_param SESSION_DRIVER file; fastcgi_param SESSION_FILES %s;",
			appKey, t.TempDir())},
	}, "illuminate")
	visitor := newShopper(t, s.Site)
	for range 12 {
		visitor.get("count")
	}
	const want = "keys must be those of the application"
	if log := s.Gate.Log(); strings.Count(log, want) != 1 {
		t.Errorf("the log has %q %d times, want once", want, strings.Count(log, want))
	}
	file := configFile(t, s.Gate.Config)
	_, stdout, stderr := run(t, "check", "--config", file, "--file-only")
	for _, secret := range []string{previousKey, appKey} {
		secret = strings.TrimPrefix(secret, "base64:")
		if strings.Contains(stdout+stderr+s.Gate.Log(), secret) {
			t.Error("a key is shown")
		}
	}
	if !strings.Contains(stdout, `format = "laravel" with 1 keys`) {
		t.Errorf("check prints %q and %q", stdout, stderr)
	}
}

// TestNoKeyOfLaravelIsTold has check and serve complain of configs with a key in them: all of that ends in the journal.
func TestNoKeyOfLaravelIsTold(t *testing.T) {
	t.Parallel()
	const secret = "OnlyTheApplicationKnows0"
	for name, lines := range map[string]string{
		"only a warning":     fmt.Sprintf("cookies = [\"a\"]\nkeys = [%q]", "base64:T25seVRoZUFwcGxpY2F0aW9uS25vd3MwMTIzNDU2Nzg="),
		"too short":          fmt.Sprintf("format = \"laravel\"\nkeys = [%q]", secret),
		"no list":            fmt.Sprintf("format = \"laravel\"\nkeys = %q", "base64:"+secret),
		"no base64":          fmt.Sprintf("application = \"laravel\"\nkeys = [%q]", "base64:"+secret+"!"),
		"lines":              fmt.Sprintf("application = \"laravel\"\nkeys = [\n%q,\n]", secret),
		"no quotes":          "application = \"laravel\"\nkeys = [" + secret + "]",
		"an open quote":      fmt.Sprintf("application = \"laravel\"\nkeys = [\"%s]", secret),
		"mistyped":           fmt.Sprintf("application = \"laravel\"\nkey = [%q]", secret),
		"as another key":     fmt.Sprintf("application = \"laravel\"\nkeyz = [%q]", secret),
		"a name of a secret": fmt.Sprintf("application = \"laravel\"\nkeys = [env(%q)]", secret),
	} {
		path := configFile(t, "gate \"www\" {\nlisten = \"unix:/no/such/folder/s\"\nupstream { address = \"127.0.0.1:9\" }\n"+
			"session {\n"+lines+"\n}\n}\n")
		_, out, said := run(t, "check", "--file-only", "--config", path)
		_, more, served := run(t, "serve", "--config", path)
		if said == "" || served == "" {
			t.Errorf("%s: check says %q, and serve %q", name, said, served)
		}
		for _, key := range []string{secret, "T25seVRoZ"} {
			if strings.Contains(out+said+more+served, key) {
				t.Errorf("%s: got the key in %s", name, out+said+more+served)
			}
		}
	}
}
