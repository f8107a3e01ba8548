package gate

import (
	"fmt"
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
	const never, now = "no session of this gate was ever seen opened in the test", "was seen opened now"
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
	const never, now = "no request of this gate had a session id", "had a session id now"
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
			request("one")
			s.reports(now, 1)
			s.misfit("")
			request("")
			s.reports(never, 1)
		})
	}
}

func TestCookiesOfASiteWithSessionsAreNotReported(t *testing.T) {
	for name, serve := range map[string]func(s *stand){
		"an id was sent": func(s *stand) { s.serve(session("one")) },
		"an id was set": func(s *stand) {
			b := s.ask()
			s.php.next().end("Set-Cookie: PHPSESSID=other\r\n" + page + "x")
			b.want("x")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, nil)
			serve(s)
			for range 2 * unnamedToReport {
				s.serve([]string{"HTTP_COOKIE", "MoodleSession=a"})
			}
			s.misfit("")
		})
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
