package tests

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// secretWays are the lines of the log that say which ways a request took. The test wants each of them, so that it
// cannot pass by doing nothing.
var secretWays = []string{
	"request done", "slow wait", "would have waited", "rejected: max_wait exceeded", "rejected: max_waiters reached",
	"lock expired before its script ended", "aborted: the lock has expired", "lock lost", "lock broken by an operator",
	"break requested by an operator", "web server hung up", "script abandoned", "response broken off", "upstream failed",
	"conn refused",
}

// TestNoSessionIDLeavesTheGate sends requests with an id that is easily known again all the ways there are, and looks
// for it in all that the gate says: to its log, to the web server, to memcached and to operators.
func TestNoSessionIDLeavesTheGate(t *testing.T) {
	t.Parallel()
	s := newTalkative(t)
	session := newSession()
	s.takeAllWays(t, session)
	said := s.allThatWasSaid(t)
	for _, way := range secretWays {
		if !strings.Contains(said["the log"], way) {
			t.Errorf("no request has taken the way that is logged as %q", way)
		}
	}
	for once, n := range map[string]int{"lock lost": 1, "script abandoned": 1, "lock broken by an operator": 1, "lock expired before its script ended": 2} {
		if got := strings.Count(said["the log"], `"@message":"`+once+`"`); got < 1 || got > n {
			t.Errorf("%q is logged %d times, want one line for each of %d at most", once, got, n)
		}
	}
	for _, id := range append(s.others, session) {
		for form, text := range formsOf(id) {
			for where, said := range said {
				if i := strings.Index(said, text); i >= 0 {
					t.Errorf("%s tells a session id, %s: …%s…", where, form, said[max(0, i-200):min(len(said), i+100)])
				}
			}
		}
	}
}

// formsOf are the forms in which an id could be told. A part of it is enough.
func formsOf(id string) map[string]string {
	part := id[:18]
	if tail := strings.TrimPrefix(id, sessionPrefix); tail != id {
		part = tail[:12] // which no other has
	}
	return map[string]string{
		"as it is":       part,
		"in hexadecimal": hex.EncodeToString([]byte(part)),
		"in HEXADECIMAL": strings.ToUpper(hex.EncodeToString([]byte(part))),
		"in base64":      base64.StdEncoding.EncodeToString([]byte(id))[:16],
		"quoted bytes":   strings.Trim(fmt.Sprint([]byte(part)), "[]"),
	}
}

// talkative is a stack whose gate says all that it can, to whomever it can.
type talkative struct {
	*stack
	admin  operator
	store  *rig.Server
	wire   *recorder       // between the gate and its store
	events *lockedBuffer   // what the admin's events told
	bodies strings.Builder // of the gate's own answers
	others []string        // more session ids
}

func newTalkative(t *testing.T) *talkative {
	t.Helper()
	r := newRig(t, "nginx", "php-fpm", "memcached")
	s := &talkative{stack: &stack{Rig: r}}
	sessions := filepath.Join(t.TempDir(), "sessions")
	if err := os.Mkdir(sessions, 0o700); err != nil {
		t.Fatal(err)
	}
	s.PHP = rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 6, INI: map[string]string{"session.save_path": sessions}})
	s.store = rigtest.Start(t, r.Memcached, rig.StoreOptions{})
	s.wire = newRecorder(t, s.store.Addr)
	var block string
	block, s.admin = adminBlock(t)
	s.Gate = startGate(t, r, rig.GateOptions{
		Upstream: s.PHP.Addr,
		Settings: secretSettings(sessions),
		Config: block + fmt.Sprintf("memcached {\n  servers = [%q]\n  lease = \"3s\"\n}\n", s.wire.addr) +
			"log {\n  level = \"trace\"\n  format = \"json\"\n  slow_wait = \"1ms\"\n}\n",
	})
	s.Site = &rig.Site{FastCGI: s.Gate.Addr, Unbuffered: true, Settings: "fastcgi_param SESSION_ID $arg_token;"}
	s.Web = rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
	s.events = new(lockedBuffer)
	stream, err := s.admin.http.Get("http://127.0.0.1/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Body.Close() })
	go io.Copy(s.events, stream.Body)
	return s
}

func secretSettings(sessions string) string {
	return fmt.Sprintf(`
  session {
    query       = ["sid"]
    param       = "SESSION_ID"
    handler     = "files"
    save_path   = %q
    open_within = "0s"
  }
  lock {
    store         = "memcached"
    max_wait      = "50s"
    max_waiters   = 1
    expiry        = "30s"
    abandon_after = "100ms"
    server_timing = true
  }
  route "hurried" {
    path        = ["/empty.php"]
    max_wait    = "1ms"
    max_waiters = 9
  }
  route "observed" {
    path    = ["/hello.php"]
    observe = true
  }
  route "short" {
    path        = ["/wait.php"]
    methods     = ["PUT"]
    expiry      = "200ms"
  }
  route "cut" {
    path      = ["/wait.php"]
    methods   = ["DELETE"]
    expiry    = "200ms"
    on_expiry = "abort"
  }`, sessions)
}

// takeAllWays makes requests of a session.
func (s *talkative) takeAllWays(t *testing.T, session string) {
	t.Helper()
	secret := "?sid=" + session + "&token="
	s.get("/count.php"+secret, session)
	s.get("/count.php?token="+session, "") // by the param
	if ids := strings.Fields(s.get("/login.php", session).body); len(ids) == 2 {
		s.others = append(s.others, ids[1])
	} else {
		t.Errorf("got ids %q, want two", ids)
	}

	held := s.hold(t, session, "held")
	waits := s.begin("/info.php"+secret, session)
	s.admin.awaitWaiters(t, 1)
	for _, accept := range []string{"text/html", "application/json"} {
		for _, path := range []string{"/empty.php", "/hello.php", "/count.php"} { // hurried, observed, one too many
			r := ask(s.Site, request{path: path + secret, session: session, header: map[string]string{"Accept": accept}})
			s.bodies.WriteString(fmt.Sprint(r.header, r.body))
		}
	}
	key := s.admin.locks(t).Locks[0].Key
	_, table, _ := s.admin.run(t, "locks")
	_, all, _ := s.admin.run(t, "locks", "--json")
	_, broken, _ := s.admin.run(t, "break", key)
	s.bodies.WriteString(table + all + broken)
	letGo(t, s.Rig, "held")
	(<-held).mustBe(t, "last\n")
	(<-waits).failure()

	s.expire(t, session)
	s.lose(t, session)
	s.hangUp(t, session)
	s.get("/die.php?kb=10&sid="+session, session)
	s.sayNonsense(t, session)
	if err := s.PHP.Stop(); err != nil {
		t.Fatal(err)
	}
	r := s.get("/count.php"+secret, session)
	s.bodies.WriteString(fmt.Sprint(r.header, r.body))
	awaitLog(t, s.Gate.Server, "upstream failed")
}

// expire has locks expire, with what follows for the request and without.
func (s *talkative) expire(t *testing.T, session string) {
	t.Helper()
	for mark, method := range map[string]string{"expired": "PUT", "cut": "DELETE"} {
		answer := begin(s.Site, request{method: method, path: "/wait.php?mark=" + mark + "&sid=" + session, session: session})
		if method == "DELETE" { // the script may not even have begun by then
			r := <-answer
			s.bodies.WriteString(fmt.Sprint(r.header, r.body))
			letGo(t, s.Rig, mark)
			continue
		}
		awaitMark(t, s.Rig, mark+".started")
		awaitLog(t, s.Gate.Server, "lock expired before its script ended")
		letGo(t, s.Rig, mark)
		(<-answer).mustBe(t, "last\n")
	}
}

// lose makes another gate take a lease.
func (s *talkative) lose(t *testing.T, session string) {
	t.Helper()
	held := s.hold(t, session, "lost")
	name := "fpm-gate:" + s.admin.locks(t).Locks[0].Key
	nc, err := net.Dial("tcp", s.store.Addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	value := "held 0123456789abcdef0123456789abcdef 1 www elsewhere"
	if _, err := fmt.Fprintf(nc, "set %s 0 0 %d\r\n%s\r\n", name, len(value), value); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "lock lost")
	if _, err := fmt.Fprintf(nc, "delete %s noreply\r\nversion\r\n", name); err != nil {
		t.Fatal(err)
	}
	_, _ = nc.Read(make([]byte, 100))
	letGo(t, s.Rig, "lost")
	(<-held).mustBe(t, "last\n")
}

// hangUp leaves while a request waits, and while the script runs.
func (s *talkative) hangUp(t *testing.T, session string) {
	t.Helper()
	running, leave := context.WithCancel(t.Context())
	gone := begin(s.Site, request{path: "/wait.php?mark=gone&sid=" + session, session: session, ctx: running})
	awaitMark(t, s.Rig, "gone.started")
	waiting, stopWaiting := context.WithCancel(t.Context())
	waits := begin(s.Site, request{path: "/count.php?sid=" + session, session: session, ctx: waiting})
	s.admin.awaitWaiters(t, 1)
	stopWaiting()
	<-waits
	awaitLog(t, s.Gate.Server, "web server hung up")
	leave()
	<-gone
	awaitLog(t, s.Gate.Server, "script abandoned")
	letGo(t, s.Rig, "gone")
}

// sayNonsense sends what is no FastCGI, or not whole, with the id in it.
func (s *talkative) sayNonsense(t *testing.T, session string) {
	t.Helper()
	begun := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	cookie := fcgi.AppendPair(nil, "HTTP_COOKIE", "PHPSESSID="+session)
	for _, nonsense := range [][]byte{
		[]byte("GET /?sid=" + session + " HTTP/1.1\r\nCookie: PHPSESSID=" + session + "\r\n\r\n"),
		slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, cookie[:len(cookie)-3]), fcgi.AppendRecord(nil, fcgi.TypeParams, 1, nil)),
		slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, cookie), fcgi.AppendRecord(nil, fcgi.TypeStdout, 1, cookie)),
		slices.Concat(begun, fcgi.AppendRecord(nil, fcgi.TypeParams, 1, fcgi.AppendPair(nil, session, strings.Repeat(session, 10_000)))),
		fcgi.AppendRecord(nil, fcgi.TypeGetValues, 0, fcgi.AppendPair(nil, session, "")),
	} {
		nc := s.dial(t)
		_, _ = nc.Write(nonsense)
		_ = nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // of an answer, if there is one
		text, _ := io.ReadAll(nc)
		s.bodies.Write(text)
		nc.Close()
	}
}

// allThatWasSaid is that, by where.
func (s *talkative) allThatWasSaid(t *testing.T) map[string]string {
	t.Helper()
	said := map[string]string{
		"the log":                  s.Gate.Log(),
		"an answer":                s.bodies.String(),
		"the traffic of the store": s.wire.String(),
		"an event":                 s.events.String(),
	}
	for _, line := range stderrInLog.FindAllStringSubmatch(s.Web.Log(), -1) {
		said["the stderr of an answer"] += line[1] + "\n"
	}
	for _, path := range []string{"/locks", "/history", "/metrics", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline"} {
		said["GET "+path] = s.admin.get(t, path)
	}
	_, said["GET /readyz"], _ = s.admin.ask(http.MethodGet, "/readyz", "")
	for where, text := range said {
		if text == "" {
			t.Errorf("nothing was said in %s", where)
		}
	}
	if !strings.Contains(said["the traffic of the store"], "held ") || !strings.Contains(said["an event"], "/wait.php") {
		t.Error("the traffic or the events are not what they should be")
	}
	return said
}

// stderrInLog finds what the gate said in nginx's log, which shows the request's query next to it.
var stderrInLog = regexp.MustCompile(`FastCGI sent in stderr: "([^"]*)"`)

// recorder passes on all that a server and its clients say to each other, and keeps it.
type recorder struct {
	lockedBuffer
	addr rig.Addr
}

func newRecorder(t *testing.T, to rig.Addr) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &recorder{addr: rig.Addr{Network: "tcp", Address: l.Addr().String()}}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(to.Network, to.Address)
			if err != nil {
				client.Close()
				continue
			}
			go r.pass(server, client)
			go r.pass(client, server)
		}
	}()
	return r
}

func (r *recorder) pass(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(io.MultiWriter(r, to), from)
}

// lockedBuffer keeps what several write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestNoSecretOfTheConfigIsTold has check, serve and a reload complain of configs with a password in them: all of that
// ends in the journal.
func TestNoSecretOfTheConfigIsTold(t *testing.T) {
	t.Parallel()
	const secret = "OnlyTheGateKnows"
	right := gateOf("www", rig.ParseAddr("unix:"+filepath.Join(t.TempDir(), "s")), `address = "unix:/tmp/never-dialled.sock"`, "")
	running := start(t, "serve", "--config", configFile(t, right))
	eventually(t, "it serves", func() bool { return strings.Contains(running.log(), "serving") })
	for name, keys := range map[string]string{
		"only a warning": fmt.Sprintf("username = \"u\"\npassword = %q", secret),
		"no username":    fmt.Sprintf("password = %q", secret),
		"a space":        fmt.Sprintf("username = \"u\"\npassword = \"a %s\"", secret),
		"no quotes":      "secret = " + secret,
		"an open quote":  fmt.Sprintf("secret = \"%s", secret),
		"mistyped":       fmt.Sprintf("passwort = %q", secret),
	} {
		path := configFile(t, "memcached {\nservers = [\"192.0.2.1:11211\"]\n"+keys+"\n}\n"+right)
		code, out, said := run(t, "check", "--file-only", "--config", path)
		if said == "" {
			t.Errorf("%s: check says nothing", name)
		}
		if code != 0 {
			_, more, served := run(t, "serve", "--config", path)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			refused := strings.Count(running.log(), "keeping the running one")
			if err := os.WriteFile(running.cmd.Args[3], text, 0o644); err != nil {
				t.Fatal(err)
			}
			running.signal(t, syscall.SIGHUP)
			eventually(t, "the reload is refused", func() bool { return strings.Count(running.log(), "keeping the running one") > refused })
			said += more + served + running.log()
		}
		if strings.Contains(out+said, secret) {
			t.Errorf("%s: got the password in %s", name, out+said)
		}
	}
}
