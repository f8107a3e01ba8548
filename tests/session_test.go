package tests

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

func TestNoUpdateIsLostWhereThePHPHandlerDoesNotLock(t *testing.T) {
	for name, handler := range map[string]struct {
		programs []string
		ini      func(*testing.T, *rig.Rig) map[string]string
	}{
		"redis": {[]string{"redis-server", "php-redis"}, func(t *testing.T, r *rig.Rig) map[string]string {
			return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), false)
		}},
		"memcached": {[]string{"memcached", "php-memcached"}, func(t *testing.T, r *rig.Rig) map[string]string {
			ini := rig.MemcachedSessions(rigtest.Start(t, r.Memcached, rig.StoreOptions{}))
			ini["memcached.sess_locking"] = "0"
			return ini
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, append(handler.programs, "nginx", "php-fpm")...)
			php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 8, INI: handler.ini(t, r)})
			gate := startGate(t, r, rig.GateOptions{Upstream: php.Addr})
			gated, straight := &rig.Site{FastCGI: gate.Addr}, &rig.Site{FastCGI: php.Addr}
			rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{gated, straight}})
			const n = 60
			if got := differentCounts(t, gated, n); got != n {
				t.Errorf("with the gate: got %d different counts of %d requests", got, n)
			}
			if got := differentCounts(t, straight, n); got == n {
				t.Errorf("without the gate no update is lost either: this test shows nothing")
			}
		})
	}
}

// differentCounts asks n times at once for one more in a session's counter, and
// says how many different counts came back.
func differentCounts(t *testing.T, site *rig.Site, n int) int {
	t.Helper()
	session := newSession()
	var answers []<-chan response
	for range n {
		answers = append(answers, begin(site, request{path: "/work.php?ms=5", session: session}))
	}
	seen := map[string]bool{}
	for _, answer := range answers {
		r := <-answer
		if err := r.failure(); err != nil {
			t.Error(err)
		}
		seen[r.body] = true
	}
	return len(seen)
}

func TestRequestsOfASessionRunInTheOrderTheyCame(t *testing.T) {
	t.Parallel()
	const n = 12
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(n)}})
	session := newSession()
	held := s.hold(t, session, "first")
	var answers []<-chan response
	var want []string
	for i := range n {
		say := strconv.Itoa(i)
		want = append(want, say)
		answers = append(answers, s.begin("/note.php?mark=order&say="+say, session))
		s.awaitQueue(t, session, i+1)
	}
	letGo(t, s.Rig, "first")
	(<-held).mustBe(t, "last\n")
	for i, answer := range answers {
		(<-answer).mustBe(t, want[i]+"\n")
	}
	if got := notes(t, s.Rig, "order"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOnlyTheSessionWaits has ten requests of a session wait, with two workers:
// one holds the session, and one must stay for everybody else.
func TestOnlyTheSessionWaits(t *testing.T) {
	t.Parallel()
	const n = 10
	s := newStack(t, stackOptions{PHP: rig.PHPOptions{Workers: 2}, Gate: rig.GateOptions{Settings: queueRoutes(n)}})
	session := newSession()
	answers := []<-chan response{s.hold(t, session, "hold")}
	for range n {
		answers = append(answers, s.begin("/wait.php?mark=hold", session))
	}
	s.awaitQueue(t, session, n)
	for range 20 {
		s.get("/hello.php", "").mustBe(t, "hello\n")
		s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	}
	eventually(t, "one worker is busy and no request waits in PHP-FPM", func() bool {
		st, err := s.PHP.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Active == 1 && st.Queue == 0
	})
	letGo(t, s.Rig, "hold")
	for _, answer := range answers {
		(<-answer).mustBe(t, "last\n")
	}
}

func TestANewSessionIDIsFollowed(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: queueRoutes(1)}, Site: rig.Site{Unbuffered: true}})
	old := newSession()
	login, err := open(s.Site, request{path: "/relogin.php?mark=login", session: old})
	if err != nil {
		t.Fatal(err)
	}
	defer login.Body.Close()
	line, err := bufio.NewReader(login.Body).ReadString('\n')
	renewed := strings.TrimSpace(line)
	if err != nil || len(login.Cookies()) == 0 || login.Cookies()[0].Value != renewed {
		t.Fatalf("login: got %q, cookies %v and error %v", line, login.Cookies(), err)
	}

	answers := map[string]<-chan response{}
	for _, session := range []string{old, renewed} { // both are this script's until it ends
		answers[session] = s.begin("/note.php?mark=after&say=x", session)
		s.awaitQueue(t, session, 1)
	}
	letGo(t, s.Rig, "login")
	for answer := range maps.Values(answers) {
		(<-answer).mustBe(t, "x\n")
	}
	if strings.Contains(s.Gate.Log(), renewed) {
		t.Error("the gate's log tells the new session id")
	}
}

// info is what info.php says.
type info struct {
	Gate    map[string]string `json:"gate"`
	Session string            `json:"session"`
}

// info asks for info.php, of which path may be another name.
func (s *stack) info(t testing.TB, q request) info {
	t.Helper()
	return infoOf(t, ask(s.Site, q))
}

// infoOf reads a response of info.php.
func infoOf(t testing.TB, r response) (i info) {
	t.Helper()
	if err := r.failure(); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(r.body), &i); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
	return i
}

func TestTheSessionIDIsFoundWhereTheConfigSays(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		Gate: rig.GateOptions{Settings: `
  session {
    cookies = ["app", "PHPSESSID"]
    query   = ["sid"]
    param   = "APP_SESSION"
  }`},
		Site: rig.Site{Settings: "fastcgi_param APP_SESSION $http_x_session if_not_empty;"},
	})
	id, other := newSession(), newSession()
	key := func(query string, header ...string) string {
		q := request{path: "/info.php?session=0" + query, header: map[string]string{}}
		for i := 0; i < len(header); i += 2 {
			q.header[header[i]] = header[i+1]
		}
		return s.info(t, q).Gate["FPM_GATE_KEY"]
	}
	want := key("", "Cookie", "PHPSESSID="+id)
	if want == "" || want == key("", "Cookie", "PHPSESSID="+other) {
		t.Fatalf("two sessions have the same key %q", want)
	}
	for name, got := range map[string]string{
		"the first cookie of the list":       key("", "Cookie", "PHPSESSID="+other+"; app="+id),
		"a query parameter":                  key("&sid=" + id),
		"a cookie before a query parameter":  key("&sid="+other, "Cookie", "PHPSESSID="+id),
		"the param before all":               key("&sid="+other, "Cookie", "app="+other, "X-Session", id),
		"a cookie that is encoded":           key("", "Cookie", fmt.Sprintf("PHPSESSID=%%%02X%s", id[0], id[1:])),
		"the first of two cookies of a name": key("", "Cookie", "PHPSESSID="+id+"; PHPSESSID="+other),
	} {
		if got != want {
			t.Errorf("%s: got key %q, want %q", name, got, want)
		}
	}
	for name, got := range map[string]string{
		"no cookie at all":            key(""),
		"a cookie of another name":    key("", "Cookie", "PHPSESSIDS="+id),
		"an id that PHP would refuse": key("", "Cookie", "PHPSESSID=<"+id),
		"an empty cookie":             key("", "Cookie", "PHPSESSID="),
	} {
		if got != "" {
			t.Errorf("%s: got key %q, want none", name, got)
		}
	}
}

// TestFilesIDsThatTheHandlerRefusesTakeNoLock: PHP's files handler does not
// lock them either.
func TestFilesIDsThatTheHandlerRefusesTakeNoLock(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: `session { handler = "files" }`}})
	for id, want := range map[string]string{newSession(): "held", "no%2Fslashes": "none"} {
		q := request{path: "/info.php?session=0", header: map[string]string{"Cookie": "PHPSESSID=" + id}}
		if got := s.info(t, q).Gate["FPM_GATE_LOCK"]; got != want {
			t.Errorf("id %s: got %s, want %s", id, got, want)
		}
	}
}

func TestSessionsOfDifferentRealmsHaveNothingInCommon(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	other := startGate(t, s.Rig, rig.GateOptions{Upstream: s.PHP.Addr, Settings: `realm = "elsewhere"`})
	same := startGate(t, s.Rig, rig.GateOptions{Upstream: s.PHP.Addr})
	sites := []*rig.Site{{FastCGI: other.Addr}, {FastCGI: same.Addr}}
	rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: sites})
	q := request{path: "/info.php?session=0", session: newSession()}
	here := s.info(t, q).Gate["FPM_GATE_KEY"]
	elsewhere := (&stack{Site: sites[0]}).info(t, q).Gate["FPM_GATE_KEY"]
	again := (&stack{Site: sites[1]}).info(t, q).Gate["FPM_GATE_KEY"]
	if here != again || here == elsewhere {
		t.Errorf("got keys %q here, %q in the same realm and %q in another", here, again, elsewhere)
	}
}

func TestASessionIsOneOnAllConnections(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		Gate: rig.GateOptions{Settings: queueRoutes(1)},
		Site: rig.Site{Keepalive: 8},
	})
	session := newSession()
	held := s.hold(t, session, "hold")
	waiting := s.begin("/info.php?session=0", session)
	s.awaitQueue(t, session, 1)
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	if r := <-waiting; r.status != http.StatusOK || !strings.Contains(r.body, `"FPM_GATE_LOCK":"held"`) {
		t.Errorf("got status %d, error %v and %q", r.status, r.err, r.body)
	}
}
