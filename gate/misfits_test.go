package gate

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/phpsession"
)

// reports checks how often the log says something.
func (s *stand) reports(text string, times int) {
	s.t.Helper()
	if got := strings.Count(s.log.String(), text); got != times {
		s.t.Errorf("the log says %q %d times, want %d", text, got, times)
	}
}

// misfit checks that the gate has this misfit, or with "" none.
func (s *stand) misfit(kind string) {
	s.t.Helper()
	all := s.Misfits()
	if got := ""; len(all) > 0 {
		got = all[0].Kind
		if got != kind || len(all) > 1 {
			s.t.Errorf("got misfits %v, want %q", all, kind)
		}
	} else if kind != "" {
		s.t.Errorf("got no misfit, want %q", kind)
	}
}

// TestAPlaceInWhichNoSessionIsOpenedIsReported once, and once when one is.
func TestAPlaceInWhichNoSessionIsOpenedIsReported(t *testing.T) {
	const never, now = "no session of this gate was ever seen opened in the test", "has been seen opened"
	for name, request := range map[string]func(s *stand){
		"an id that is not seen": func(s *stand) { s.serve(session("made-up")) },
		"a first visit": func(s *stand) {
			b := s.ask()
			s.php.next().end("Set-Cookie: PHPSESSID=other\r\n" + page + "x")
			b.want("x")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, php := newWatchedStand(t, nil)
			for range unseenToReport - 1 {
				request(s)
			}
			s.reports(never, 0)
			s.misfit("")
			for range 5 {
				request(s)
			}
			s.reports(never, 1)
			s.misfit(NotOpened)
			b := s.ask(session("one")...)
			script := s.php.next()
			php.open("one")
			php.close("one")
			script.end(page + "x")
			b.want("x")
			s.reports(now, 1)
			s.misfit("")
			for range 2 * unseenToReport {
				request(s)
			}
			s.reports(never, 1)
			s.misfit("")
		})
	}
}

// What proves nothing of the place is not counted against it.
func TestAPlaceIsNotBlamedForWhatProvesNothing(t *testing.T) {
	for name, params := range map[string][]string{
		"no session":                      nil,
		"it cannot be seen":               session("unknown"),
		"kept there, not open":            session("shut"),
		"kept there, unopened":            session("kept"),
		"a session is not for this route": append(session("made-up"), "SCRIPT_NAME", "/off"),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newWatchedStand(t, func(o *Options) {
				off := o.Policy
				off.Mode = Off
				o.Routes = []Route{{Paths: []string{"/off"}, Policy: off}}
			})
			for range 2 * unseenToReport {
				s.serve(params)
			}
			s.reports("no session of this gate", 0)
			s.misfit("")
		})
	}
}

// TestACookieThatLooksLikeASessionIsReported by its name, never by its value.
func TestACookieThatLooksLikeASessionIsReported(t *testing.T) {
	const never, now = "no request of this gate had a session id, so", "the requests of this gate have session ids now"
	for name, c := range map[string]struct{ cookie, header, names string }{
		"sent":                                  {"a=1; MoodleSession=tops3cret; SSESS0a1b=tops3cret", "", "MoodleSession, SSESS0a1b;"},
		"set":                                   {"", "Set-Cookie: connect.sid=tops3cret; path=/\r\n", "connect.sid;"},
		"sent and set":                          {"laravel_session=tops3cret", "Set-Cookie: laravel_session=tops3cret\r\n", "laravel_session;"},
		"our own is no id, so another is meant": {"PHPSESSID=%20; sid=tops3cret", "", ": sid;"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, nil)
			request := func(id string) {
				params := []string{"HTTP_COOKIE", c.cookie}
				if id != "" {
					params = session(id)
				}
				b := s.ask(params...)
				s.php.next().end(c.header + page + "x")
				b.want("x")
			}
			for range 5 * unnamedToReport {
				request("")
			}
			s.reports(never, 1)
			s.reports("tops3cret", 0)
			s.reports(c.names, 1)
			s.misfit(CookieName)
			request("made-up")
			s.reports(now, 0)
			s.misfit(CookieName)
			for range idsToBelieve {
				request("one")
			}
			s.reports(now, 1)
			s.misfit("")
			request("")
			s.reports(never, 1)
		})
	}
}

// TestASiteOfWhichNoSessionIsFoundIsReported with the names of its cookies and what would fit, once.
func TestASiteOfWhichNoSessionIsFoundIsReported(t *testing.T) {
	const never, now = "100 or more had other cookies", "the requests of this gate have session ids now"
	var asked []string
	asks := 0
	s := newStand(t, func(o *Options) {
		o.Suggest = func(names []string) string {
			asked = names
			asks++
			return `application = "shop"`
		}
	})
	for i := range cookiesToReport - 1 {
		s.serve([]string{"HTTP_COOKIE", fmt.Sprintf("shop_0a1b=tops3cret; _ga=1; once%d=1; \x1b[31m=1; PHPSESSID=%%20", i)})
		s.serve(nil) // no cookies
	}
	s.reports(never, 0)
	s.misfit("")
	for range 5 {
		s.serve([]string{"HTTP_COOKIE", "shop_0a1b=tops3cret"})
	}
	s.reports(never, 1)
	if asks != 1 {
		t.Errorf("the text was made %d times, want once for all requests", asks)
	}
	s.reports("tops3cret", 0)
	s.reports("most of them shop_0a1b, _ga, once0", 1)
	s.reports(`or write application = "shop"`, 1)
	s.misfit(NoSession)
	if len(asked) != maxCounted || !slices.Contains(asked, "shop_0a1b") || slices.Contains(asked, "PHPSESSID") {
		t.Errorf("asked for %d names: %v", len(asked), asked)
	}
	b := s.ask()
	s.php.next().end("Set-Cookie: PHPSESSID=one\r\n" + page + "x")
	b.want("x")
	s.reports(now, 1)
	s.misfit("")
}

func TestRequestsWithoutCookiesAreNoMisfit(t *testing.T) {
	s := newStand(t, nil)
	for range 2 * cookiesToReport {
		s.serve(nil)
	}
	s.misfit("")
}

// plainly is a format whose cookies are "<" and the id.
type plainly struct{}

func (plainly) Open(_ string, value []byte) ([]byte, bool) {
	return bytes.CutPrefix(value, []byte("<"))
}

// TestCookiesThatDoNotOpenAreReported counts each request, and reports once.
func TestCookiesThatDoNotOpenAreReported(t *testing.T) {
	for name, c := range map[string]struct {
		edit       func(*phpsession.Rules)
		good, hint string
	}{
		"format":  {func(r *phpsession.Rules) { r.Format = plainly{} }, "<abc", "keys must be those"},
		"pattern": {func(r *phpsession.Rules) { r.IDPattern = regexp.MustCompile("^id=(.*)") }, "id=abc", "id_pattern must match"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, func(o *Options) {
				o.Session.Cookies = []string{"app_*", "other"}
				c.edit(&o.Session)
			})
			for range 3 * unreadToReport {
				s.serve([]string{"HTTP_COOKIE", "app_1=tops3cret; app_2=x"})
			}
			s.reports("had a cookie named app_* or other without one", 1)
			s.reports(c.hint, 1)
			s.reports("tops3cret", 0)
			s.misfit(CookieText)
			if got := s.Stats().Unread; got != 3*unreadToReport {
				t.Errorf("counted %d unread cookies, want %d", got, 3*unreadToReport)
			}
			for range idsToBelieve {
				s.serve([]string{"HTTP_COOKIE", "app_1=x; app_2=" + c.good})
			}
			s.misfit("")
			if got := s.Stats(); got.Unread != 3*unreadToReport || got.Acquired != idsToBelieve {
				t.Errorf("with an id: counted %d unread cookies and %d locks, want %d and %d", got.Unread, got.Acquired,
					3*unreadToReport, idsToBelieve)
			}
		})
	}
}

func TestCookiesOfASiteWithSessionsAreNotReported(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(s *stand)
		others int // requests with another cookie after that
	}{
		"an id was set": {func(s *stand) {
			b := s.ask()
			s.php.next().end("Set-Cookie: PHPSESSID=other\r\n" + page + "x")
			b.want("x")
		}, 100},
		"a twentieth of the requests have one": {func(s *stand) { s.serve(session("one")) }, shareToBelieve},
		"many had one": {func(s *stand) {
			for range idsToBelieve {
				s.serve(session("one"))
			}
		}, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, nil)
			c.serve(s)
			for range c.others {
				s.serve([]string{"HTTP_COOKIE", "MoodleSession=a"})
			}
			s.misfit("")
			s.reports("of this gate had a session id", 0)
		})
	}
}

// A visitor who sends an id that no application has given out does not keep a misfit from being reported.
func TestMadeUpIDsHideNoMisfit(t *testing.T) {
	for _, c := range []struct {
		ids  int
		want string
	}{{1, "only one request of this gate had"}, {3, "only 3 requests of this gate had"}} {
		s := newStand(t, nil)
		for range c.ids {
			s.serve(session("made-up"))
		}
		for range 100 {
			s.serve([]string{"HTTP_COOKIE", "MoodleSession=a"})
		}
		s.misfit(CookieName)
		s.reports(c.want, 1)
	}
}

func TestNamesOfSessionCookies(t *testing.T) {
	m := newMisfits(&Options{Session: phpsession.Rules{Cookies: []string{"PHPSESSID"}}}, hclog.NewNullLogger())
	for name, want := range map[string]bool{
		"MoodleSession": true, "MoodleSessiontest": true, "laravel_session": true, " SSESS0123abc": true, "ci_session": true,
		"phpbb3_x_sid": true, "JSESSIONID": true, "OCSESSID": true, "connect.sid": true, "SID": true,
		"": false, "_ga": false, "lang": false, "consent": false, "XSRF-TOKEN": false, "sidebar": false,
		"PHPSESSID": false, "se\nss": false, "sess\x1b[31m": false, strings.Repeat("sess", 20): false,
	} {
		if got := m.looksLikeSession([]byte(name)); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
	for i := range 10 * maxNames {
		m.sent(fmt.Appendf(nil, "sess%d=a", i))
	}
	if got := len(m.names); got != maxNames {
		t.Errorf("%d names are kept, want %d", got, maxNames)
	}
}
