package tests

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// stack is nginx, the gate and PHP-FPM one after the other, of one test.
type stack struct {
	*rig.Rig
	PHP  *rig.PHPFPM
	Gate *rig.Gate
	Web  *rig.Server
	Site *rig.Site
}

// stackOptions say in what a stack differs from the zero value of each.
type stackOptions struct {
	PHP  rig.PHPOptions
	Gate rig.GateOptions // Upstream is PHP's, unless Config has gates of its own
	Site rig.Site        // FastCGI is the gate's if it is left open
}

// newStack starts a stack, which ends with the test.
func newStack(t testing.TB, o stackOptions, programs ...string) *stack {
	t.Helper()
	s := &stack{Rig: newRig(t, append(programs, "nginx", "php-fpm")...)}
	s.PHP = rigtest.Start(t, s.PHPFPM, o.PHP)
	if o.Gate.Upstream.Address == "" && !strings.Contains(o.Gate.Config, "gate \"") {
		o.Gate.Upstream = s.PHP.Addr
	}
	s.Gate = startGate(t, s.Rig, o.Gate)
	s.Site = &o.Site
	if s.Site.FastCGI.Address == "" {
		s.Site.FastCGI = s.Gate.Addr
	}
	s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
	return s
}

// newRig returns a rig with the scripts of the tests in addition to its own.
func newRig(t testing.TB, programs ...string) *rig.Rig {
	t.Helper()
	r := rigtest.New(t, programs...)
	scripts, err := testScripts.ReadDir("testdata/php")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range scripts {
		text, err := testScripts.ReadFile("testdata/php/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.DocRoot, f.Name()), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(r.DocRoot, "marks"), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// testScripts are the scripts of the tests; each says at its top what it is for.
//
//go:embed testdata/php
var testScripts embed.FS

// startGate starts a gate. When the test ends, the gate is ended before the
// servers around it, and its log is held to what no log may have in it.
func startGate(t testing.TB, r *rig.Rig, o rig.GateOptions) *rig.Gate {
	t.Helper()
	o.Binary = cmp.Or(o.Binary, gateBinary)
	o.Env = append(o.Env, raceOptions)
	if o.Args == nil {
		o.Args = []string{"--drain-timeout", "1s"} // what a test leaves behind is not worth more
	}
	g := rigtest.Start(t, r.Gate, o)
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
		checkLog(t, g.Name, g.Log())
	})
	return g
}

// raceOptions keep the race detector from pausing for a second at each exit.
const raceOptions = "GORACE=atexit_sleep_ms=20"

// reload has a gate take another config, and waits until it has.
func reload(t testing.TB, g *rig.Gate, config string) {
	t.Helper()
	const taken = "reloaded"
	before := strings.Count(g.Log(), taken)
	if err := g.Reload(config); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gate has reloaded", func() bool { return strings.Count(g.Log(), taken) > before })
}

// withUpstream adds lines to the upstream block of a config that the rig made.
func withUpstream(config, lines string) string {
	return upstreamBlock.ReplaceAllString(config, "upstream {\n$1\n"+lines+"\n}")
}

var upstreamBlock = regexp.MustCompile(`upstream \{ (.*) \}`)

// checkLog fails the test over a gate's log that tells of a bug, or that tells
// session ids.
func checkLog(t testing.TB, name, log string) {
	t.Helper()
	for _, never := range []string{"DATA RACE", "panic:", "fatal error:", sessionPrefix} {
		if strings.Contains(log, never) {
			t.Errorf("the log of %s has %q in it", name, never)
		}
	}
}

// sessionPrefix begins every session id that the tests make up, so that a log
// which tells one is found out.
const sessionPrefix = "SecretOfAVisitor"

// newSession makes up a session id.
func newSession() string { return sessionPrefix + rand.Text() }

// request is what a client asks for.
type request struct {
	method  string // GET if empty
	path    string // with its query
	session string // the session cookie's value; empty: none
	header  map[string]string
	body    io.Reader
	length  int64           // of a body that does not tell it itself; 0: it is sent in chunks then
	ctx     context.Context // nil: for as long as requestTimeout
}

// response is what came of it.
type response struct {
	err    error // the response did not come, or not whole
	status int
	header http.Header
	body   string
}

// requestTimeout is longer than any request of a test should take.
const requestTimeout = time.Minute

// client makes a connection for each request: one that the server has closed
// would be tried again in silence, and hide what it is that fails.
var client = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	Timeout:   requestTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	},
}

// ask sends a request to a site and waits for all of the response.
func ask(site *rig.Site, q request) response {
	resp, err := open(site, q)
	if err != nil {
		return response{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{err, resp.StatusCode, resp.Header, string(body)}
}

// open sends a request to a site and leaves the body of the response unread.
func open(site *rig.Site, q request) (*http.Response, error) {
	r, err := http.NewRequestWithContext(cmp.Or(q.ctx, context.Background()), cmp.Or(q.method, "GET"), site.URL(q.path), q.body)
	if err != nil {
		return nil, err
	}
	if q.session != "" {
		r.AddCookie(&http.Cookie{Name: "PHPSESSID", Value: q.session})
	}
	if q.length > 0 {
		r.ContentLength = q.length
	}
	for name, value := range q.header {
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	return client.Do(r)
}

// begin sends a request concurrently with the test, which gets the response from the channel.
func begin(site *rig.Site, q request) <-chan response {
	answered := make(chan response, 1)
	go func() { answered <- ask(site, q) }()
	return answered
}

// get asks the stack's site for a path, with a session or without.
func (s *stack) get(path, session string) response {
	return ask(s.Site, request{path: path, session: session})
}

// begin requests a path of the stack's site concurrently with the test.
func (s *stack) begin(path, session string) <-chan response {
	return begin(s.Site, request{path: path, session: session})
}

// failure says in what a response differs from a whole one of status 200.
func (r response) failure() error {
	switch {
	case r.err != nil:
		return r.err
	case r.status != http.StatusOK:
		return fmt.Errorf("status %d: %.300s", r.status, r.body)
	}
	return nil
}

// mustBe fails the test unless the response is whole, of status 200, and has
// that body.
func (r response) mustBe(t testing.TB, body string) {
	t.Helper()
	if err := r.failure(); err != nil {
		t.Errorf("got %v, want %.100q", err, body)
	} else if r.body != body {
		t.Errorf("got %.300q, want %.100q", r.body, body)
	}
}

// eachNetwork runs a test over unix sockets and over TCP, both at once.
func eachNetwork(t *testing.T, run func(*testing.T, rig.Addr)) {
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		t.Run(network.Network, func(t *testing.T) {
			t.Parallel()
			run(t, network)
		})
	}
}

// leave sends a request, and hangs up when its script has made a mark.
func leave(t *testing.T, r *rig.Rig, site *rig.Site, q request, mark string) {
	t.Helper()
	ctx, hangUp := context.WithCancel(t.Context())
	q.ctx = ctx
	left := begin(site, q)
	awaitMark(t, r, mark)
	hangUp()
	<-left
}

// copyScript gives a script another name, which may have folders in it.
func copyScript(t testing.TB, r *rig.Rig, name, as string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.DocRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.DocRoot, as)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// awaitMark waits for a file that a script makes, such as wait.php's M.started.
func awaitMark(t testing.TB, r *rig.Rig, name string) {
	t.Helper()
	eventually(t, "the script has made "+name, func() bool { return marked(r, name) })
}

// marked reports whether the file is there.
func marked(r *rig.Rig, name string) bool {
	_, err := os.Stat(filepath.Join(r.DocRoot, "marks", name))
	return err == nil
}

// letGo ends a script wait.php. One that has ended by itself is a failure: what
// should have come to pass meanwhile may have waited for its end.
func letGo(t testing.TB, r *rig.Rig, mark string) {
	t.Helper()
	if marked(r, mark+".ended") {
		t.Errorf("the script of mark %s has ended, but the test did not let it go", mark)
	}
	if err := os.WriteFile(filepath.Join(r.DocRoot, "marks", mark+".go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// notes are the lines that note.php has added under a mark.
func notes(t testing.TB, r *rig.Rig, mark string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.DocRoot, "marks", mark))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// hold has a script hold a session, and returns when it does. It ends by letGo
// of the mark, and then its response comes.
func (s *stack) hold(t testing.TB, session, mark string) <-chan response {
	t.Helper()
	held := s.begin("/wait.php?mark="+mark, session)
	awaitMark(t, s.Rig, mark+".started")
	return held
}

// queueRoutes are the routes by which a test sees how long a session's queue
// is: see awaitQueue.
func queueRoutes(longest int) string {
	var routes strings.Builder
	for n := 1; n <= longest; n++ {
		fmt.Fprintf(&routes, `
  route "queue-%[1]d" {
    path        = ["/queue/%[1]d.php"]
    max_wait    = "1ms"
    max_waiters = %[1]d
  }`, n)
	}
	return routes.String()
}

// awaitQueue waits until at least n requests wait for a session: one more is
// sent away at once then. The gate's settings need queueRoutes.
func (s *stack) awaitQueue(t testing.TB, session string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d requests wait for the session", n), func() bool {
		return s.get(fmt.Sprintf("/queue/%d.php", n), session).status == http.StatusTooManyRequests
	})
}

// awaitLog waits until a server's log has a text in it.
func awaitLog(t testing.TB, s *rig.Server, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the log of %s has %q in it", s.Name, text), func() bool {
		return strings.Contains(s.Log(), text)
	})
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("it never came to pass that %s", what)
}
