package tests

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestALockCanEndWithTheHeadersOfTheResponse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		settings, query string
	}{
		"by the config":                      {`lock { release_on = "headers" }`, ""},
		"by the script":                      {"", "&header=FPM-Gate-Release:%201"},
		"by the script, in its own spelling": {"", "&header=fpm-gate-release:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: tt.settings}, Site: rig.Site{Unbuffered: true}})
			session := newSession()
			resp := s.firstHalf(t, "/wait.php?flush=1&mark=run"+tt.query, session)
			s.get("/hello.php", session).mustBe(t, "hello\n")
			if _, is := resp.Header["Fpm-Gate-Release"]; is {
				t.Error("the header was passed on")
			}
			letGo(t, s.Rig, "run")
			if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "last\n" {
				t.Errorf("the other half: got %q and error %v", rest, err)
			}
		})
	}
}

func TestALockIsHeldWhereTheScriptDoesNotReleaseIt(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1)}, Site: rig.Site{Unbuffered: true}})
	for _, query := range []string{"", "&header=FPM-Gate-Release:%200", "&header=X-FPM-Gate-Release:%201"} {
		session, mark := newSession(), strings.Map(letters, query)+"run"
		resp := s.firstHalf(t, "/wait.php?flush=1&mark="+mark+query, session)
		if _, is := resp.Header["Fpm-Gate-Release"]; is {
			t.Errorf("%s: the header was passed on", query)
		}
		waiting := s.begin("/hello.php", session)
		s.awaitQueue(t, session, 1)
		letGo(t, s.Rig, mark)
		(<-waiting).mustBe(t, "hello\n")
		io.Copy(io.Discard, resp.Body)
	}
}

// letters leaves a text's letters and digits.
func letters(r rune) rune {
	if strings.ContainsRune("&=:% -", r) {
		return -1
	}
	return r
}

// firstHalf asks for a script that sends "first" and goes on, and returns when
// that is here. The caller reads the rest; the test closes it.
func (s *stack) firstHalf(t *testing.T, path, session string) *http.Response {
	t.Helper()
	resp, err := open(s.Site, request{path: path, session: session})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	first := make([]byte, len("first\n"))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first\n" {
		t.Fatalf("got %q and error %v, want the first half", first, err)
	}
	return resp
}

func TestServerTimingTellsTheWait(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: "lock { server_timing = true }\n" + queueRoutes(1)}})
	session := newSession()
	held := s.hold(t, session, "hold")
	waiting := s.begin("/headers.php?status=200", session)
	s.awaitQueue(t, session, 1)
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	r := <-waiting
	r.mustBe(t, "headers\n")
	form := regexp.MustCompile(`^fpm-gate;desc="session lock held";dur=\d+\.\d$`)
	if got := r.header.Get("Server-Timing"); !form.MatchString(got) {
		t.Errorf("got %q, want it to match %s", got, form)
	}
	if got, want := len(r.header["Set-Cookie"]), 3; got != want {
		t.Errorf("other cookies: got %d, want %d", got, want)
	}
	if got := s.get("/hello.php", "").header.Get("Server-Timing"); got != "" {
		t.Errorf("without a session: got %q, want none", got)
	}
}
