package tests

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestEveryWebServer runs the same cases through every web server, over both
// kinds of socket.
func TestEveryWebServer(t *testing.T) {
	for _, web := range webServers {
		for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
			t.Run(web.name+" over "+network.Network, func(t *testing.T) {
				t.Parallel()
				p := newPassage(t, web, network)
				for _, c := range passageCases {
					t.Run(c.name, func(t *testing.T) { c.hold(t, p) })
				}
			})
		}
	}
}

// passage is a web server with two sites: one whose PHP-FPM is behind the gate,
// and one whose PHP-FPM is not, to compare with.
type passage struct {
	*rig.Rig
	web      webServer
	php      *rig.PHPFPM // behind the gate
	gate     *rig.Gate
	admin    operator
	gated    *rig.Site
	log      func() string // of the web server of gated
	straight *rig.Site
}

func newPassage(t *testing.T, web webServer, network rig.Addr) *passage {
	p := &passage{Rig: newRig(t, web.program, "php-fpm"), web: web}
	php := rig.PHPOptions{Listen: network, Workers: 6}
	p.php = rigtest.Start(t, p.PHPFPM, php)
	block, admin := adminBlock(t)
	p.admin = admin
	p.gate = startGate(t, p.Rig, rig.GateOptions{
		Listen:   network,
		Upstream: p.php.Addr,
		Config:   block,
		Env:      []string{"GOMAXPROCS=4"}, // more than it would take here, and more for the race detector to see
	})
	p.gated = &rig.Site{FastCGI: p.gate.Addr, Keepalive: web.keepalive, Unbuffered: true}
	p.log = web.start(t, p.Rig, p.gated)

	reference := rigtest.Start(t, p.PHPFPM, php)
	p.straight = &rig.Site{FastCGI: reference.Addr, Keepalive: web.keepalive, Unbuffered: true}
	web.start(t, p.Rig, p.straight)
	return p
}

// passageCases are what holds through every web server. Those that stop PHP-FPM
// stand last.
var passageCases = []struct {
	name string
	hold func(*testing.T, *passage)
}{
	{"responses are the same as without the gate", sameResponses},
	{"bodies of 5 MB arrive whole", largeBodies},
	{"an upload that comes slowly delays no page of its session", slowUpload},
	{"a response of 20 MB arrives whole", largeResponse},
	{"stderr reaches the web server's log", stderrReachesTheLog},
	{"a response is passed on while it is made", responseStreams},
	{"200 requests at once are all served", manyAtOnce},
	{"what a script prints after its response reaches no client", lateOutput},
	{"a script that goes on after its response keeps its lock", lateSession},
	{"what its client has sent and leaves while it waits is run", leftRequests},
	{"a response whose worker is killed never looks whole", killedWorker},
	{"no request fails after a restart of PHP-FPM", restartedPHP},
	{"without PHP-FPM there is an error, and pages when it is back", stoppedPHP},
}

func sameResponses(t *testing.T, p *passage) {
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for _, q := range []struct {
		name, method, path, body string
		header                   map[string]string
	}{
		{name: "GET", path: "/hello.php"},
		{name: "a query and a path info", path: "/info.php/a%20b/c?session=0&x=%00%26+y&z[]=1"},
		{name: "HEAD", method: "HEAD", path: "/headers.php?status=200"},
		{name: "HEAD of a large response", method: "HEAD", path: "/big.php?mb=1"},
		{name: "POST", method: "POST", path: "/upload.php", body: "a=1&b=2", header: form},
		{name: "POST with an empty body", method: "POST", path: "/upload.php", header: form},
		{name: "PUT", method: "PUT", path: "/upload.php", body: "put"},
		{name: "DELETE", method: "DELETE", path: "/info.php?session=0"},
		{name: "OPTIONS", method: "OPTIONS", path: "/info.php?session=0"},
		{name: "several cookies and headers", path: "/headers.php?status=201&bytes=1500"},
		{name: "a status of PHP's own", path: "/headers.php?status=418"},
		{name: "an error of PHP's own", path: "/headers.php?status=500"},
		{name: "503 from PHP", path: "/headers.php?status=503"},
		{name: "an empty 200", path: "/empty.php?status=200"},
		{name: "204", path: "/empty.php?status=204"},
		{name: "302", path: "/redirect.php?to=/hello.php"},
		{name: "304", path: "/empty.php?status=304"},
		{name: "a script that is not there", path: "/missing.php"},
		{name: "many cookies", path: "/info.php?session=0", header: map[string]string{"Cookie": "a=1; b=\"2\"; PHPSESSIONS=x; c=" + strings.Repeat("x", 3000)}},
	} {
		t.Run(q.name, func(t *testing.T) {
			r := func(site *rig.Site) response {
				return ask(site, request{method: q.method, path: q.path, header: q.header, body: strings.NewReader(q.body)})
			}
			compare(t, r(p.gated), r(p.straight))
		})
	}
}

// compare holds a response to being the same as the one without the gate. Date
// tells the time, and Content-Length what the web server had when it began.
func compare(t *testing.T, got, want response) {
	t.Helper()
	if got.err != nil || want.err != nil {
		t.Fatalf("got error %v, want %v", got.err, want.err)
	}
	if got.status != want.status {
		t.Errorf("status: got %d, want %d", got.status, want.status)
	}
	for _, h := range []http.Header{got.header, want.header} {
		h.Del("Date")
		h.Del("Content-Length")
	}
	if !reflect.DeepEqual(got.header, want.header) {
		t.Errorf("header: got %q, want %q", got.header, want.header)
	}
	if got, want := withoutPid(got.body), withoutPid(want.body); got != want {
		t.Errorf("body: got %.500q, want %.500q", got, want)
	}
}

// withoutPid cuts off what info.php says last, which no two workers have in
// common, and what only the gate tells.
func withoutPid(body string) string {
	before, _, _ := strings.Cut(body, `,"pid":`)
	return gateOnly.ReplaceAllString(before, `"gate":{}`)
}

// gateOnly is what only the gate tells a script without a session.
var gateOnly = regexp.MustCompile(`"gate":\{"FPM_GATE_QUEUE_MS":"\d+","FPM_GATE_LOCK":"none"\}`)

func largeBodies(t *testing.T, p *passage) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 5<<16)
	sum := fmt.Sprintf("%d %x\n", len(body), sha256.Sum256(body))
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "file.bin")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(body)
	w.Close()
	for contentType, body := range map[string][]byte{"application/octet-stream": body, w.FormDataContentType(): form.Bytes()} {
		for _, session := range []string{"", newSession()} {
			ask(p.gated, request{
				method:  "POST",
				path:    "/upload.php",
				session: session,
				header:  map[string]string{"Content-Type": contentType},
				body:    bytes.NewReader(body),
			}).mustBe(t, sum)
		}
	}
}

func slowUpload(t *testing.T, p *passage) {
	session, body := newSession(), strings.Repeat("0123456789abcdef", 40_000)
	r, w := io.Pipe()
	uploaded := begin(p.gated, request{
		method: "POST", path: "/upload.php", session: session, body: r, length: int64(len(body)),
		header: map[string]string{"Content-Type": "application/octet-stream"},
	})
	for from := 0; from < len(body); from += len(body) / 10 {
		if _, err := io.WriteString(w, body[from:from+len(body)/10]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // which makes it slow
		if err := ask(p.gated, request{path: "/hello.php", session: session}).failure(); err != nil {
			w.CloseWithError(err)
			t.Fatalf("%d bytes of the upload have been sent, and a page of its session gets %v", from, err)
		}
	}
	w.Close()
	(<-uploaded).mustBe(t, fmt.Sprintf("%d %x\n", len(body), sha256.Sum256([]byte(body))))
}

func largeResponse(t *testing.T, p *passage) {
	got := ask(p.gated, request{path: "/big.php?mb=20"})
	for tries := 1; got.failure() != nil && p.web.loses && tries < 10; tries++ {
		got = ask(p.gated, request{path: "/big.php?mb=20"})
	}
	want := ask(p.straight, request{path: "/hash.php?mb=20"})
	if err := got.failure(); err != nil {
		t.Fatal(err)
	}
	want.mustBe(t, fmt.Sprintf("%x\n", sha256.Sum256([]byte(got.body))))
}

func stderrReachesTheLog(t *testing.T, p *passage) {
	ask(p.gated, request{path: "/stderr.php?say=hear-hear"}).mustBe(t, "before\nafter\n")
	p.mustLog(t, "hear-hear")
}

// mustLog waits until the web server has logged what came on stderr.
func (p *passage) mustLog(t *testing.T, text string) {
	t.Helper()
	if !p.web.quiet {
		eventually(t, fmt.Sprintf("the web server has logged %q", text), func() bool { return strings.Contains(p.log(), text) })
	}
}

func responseStreams(t *testing.T, p *passage) {
	resp, err := open(p.gated, request{path: "/wait.php?flush=1&mark=stream", session: newSession()})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len("first\n"))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first\n" {
		t.Fatalf("got %q and error %v, want the first half", first, err)
	}
	letGo(t, p.Rig, "stream")
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "last\n" {
		t.Errorf("got %q and error %v, want the other half", rest, err)
	}
}

func manyAtOnce(t *testing.T, p *passage) {
	body := strings.Repeat("0123456789", 10000)
	sum := fmt.Sprintf("%d %x\n", len(body), sha256.Sum256([]byte(body)))
	var posts, gets []<-chan response
	for range 100 {
		post := request{method: "POST", path: "/upload.php", body: strings.NewReader(body)}
		posts = append(posts, begin(p.gated, post))
		gets = append(gets, begin(p.gated, request{path: "/hello.php", session: newSession()}))
	}
	for i := range posts {
		(<-posts[i]).mustBe(t, sum)
		(<-gets[i]).mustBe(t, "hello\n")
	}
}

// lateOutput has scripts print after fastcgi_finish_request() while pages are asked for, with pauses that let the output
// come before, between and after them.
func lateOutput(t *testing.T, p *passage) {
	for _, limit := range []string{"max_connections = 0", "max_connections = 2"} {
		reload(t, p.gate, withUpstream(p.gate.Config, "\n\t"+limit))
		var visitors sync.WaitGroup
		for visitor := range 4 {
			visitors.Go(func() {
				for i := range 25 {
					mine := fmt.Sprintf("%d-%d", visitor, i)
					late := fmt.Sprintf("/late.php?n=%s&kind=%d&us=%d", mine, i%5, i%3*700)
					first := ask(p.gated, request{path: late})
					first.mustBe(t, "early "+mine+"\n")
					page := ask(p.gated, request{path: "/late.php?n=" + mine})
					page.mustBe(t, "early "+mine+"\n")
					for _, r := range []response{first, page} {
						if r.header.Get("X-Late") != "" || len(r.header["Set-Cookie"]) > 0 {
							t.Errorf("%s: got the header of another request: %q", limit, r.header)
						}
					}
				}
			})
		}
		visitors.Wait()
	}
}

// lateSession counts in a session that is not locked by PHP and written after fastcgi_finish_request().
func lateSession(t *testing.T, p *passage) {
	session := newSession()
	var asked []<-chan response
	for range 5 {
		asked = append(asked, begin(p.gated, request{path: "/unlocked.php", session: session}))
	}
	for _, r := range asked {
		if err := (<-r).failure(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all are counted", func() bool {
		return ask(p.gated, request{path: "/unlocked.php?read=1", session: session}).body == "5\n"
	})
}

func killedWorker(t *testing.T, p *passage) {
	for i, kb := range []int{100, 1, 2000, 64} {
		r := ask(p.gated, request{path: fmt.Sprintf("/die.php?kb=%d", kb), session: newSession()})
		switch {
		case r.failure() != nil:
		case p.web.aborts == "":
			t.Errorf("killed after %d KB: got a whole response of status 200 with %d bytes", kb, len(r.body))
		default:
			eventually(t, "the web server has seen the cut", func() bool { return strings.Count(p.log(), p.web.aborts) == i+1 })
		}
	}
	if r := ask(p.gated, request{path: "/die.php?kb=0", session: newSession()}); r.err == nil && r.status < 500 {
		t.Errorf("killed before the response: got status %d, want an error", r.status)
	}
	ask(p.gated, request{path: "/hello.php"}).mustBe(t, "hello\n")
}

// restartedPHP restarts PHP-FPM while the gate has connections to it in its
// pool, which it keeps for long enough to notice.
func restartedPHP(t *testing.T, p *passage) {
	reload(t, p.gate, withUpstream(p.gate.Config, `
	reuse           = "1m"
	idle            = "1m"
	max_connections = 6`))
	posted := fmt.Sprintf("6 %x\n", sha256.Sum256([]byte("posted")))
	for range 3 {
		var warm []<-chan response
		for range 6 {
			warm = append(warm, begin(p.gated, request{path: "/nosession.php?ms=20"}))
		}
		for _, r := range warm {
			(<-r).mustBe(t, "no session\n")
		}
		if err := p.php.Restart(); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			ask(p.gated, request{path: "/hello.php", session: newSession()}).mustBe(t, "hello\n")
			ask(p.gated, request{method: "POST", path: "/upload.php", body: strings.NewReader("posted")}).mustBe(t, posted)
		}
	}
}

func stoppedPHP(t *testing.T, p *passage) {
	if err := p.php.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, session := range []string{"", newSession()} {
		r := ask(p.gated, request{path: "/hello.php", session: session})
		if r.err == nil && r.status < 500 {
			t.Errorf("got status %d, want an error", r.status)
		}
	}
	awaitLog(t, p.gate.Server, "PHP-FPM cannot be reached")
	if err := p.php.Start(); err != nil {
		t.Fatal(err)
	}
	ask(p.gated, request{path: "/hello.php"}).mustBe(t, "hello\n")
}
