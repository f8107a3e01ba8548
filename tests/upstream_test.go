package tests

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// newStackOf starts a stack whose gate has more lines in its upstream block.
func newStackOf(t *testing.T, php rig.PHPOptions, upstream, settings string) *stack {
	t.Helper()
	s := &stack{Rig: newRig(t, "nginx", "php-fpm")}
	s.PHP = rigtest.Start(t, s.PHPFPM, php)
	s.serve(t, fmt.Sprintf("address = %q\n%s", s.PHP.Addr, upstream), settings)
	return s
}

// newPair starts a stack with two PHP-FPMs, and more lines in the upstream block.
func newPair(t *testing.T, workers int, upstream string) (s *stack, other *rig.PHPFPM) {
	t.Helper()
	s = &stack{Rig: newRig(t, "nginx", "php-fpm")}
	s.PHP = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{Workers: workers})
	other = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{Workers: workers, Listen: rig.TCP})
	s.serve(t, fmt.Sprintf("addresses = [%q, %q]\n%s", s.PHP.Addr, other.Addr, upstream), "")
	return s, other
}

// serve starts the gate, with an upstream block of its own, and nginx.
func (s *stack) serve(t *testing.T, upstream, settings string) {
	t.Helper()
	listen, err := s.Reserve("unix", "gate")
	if err != nil {
		t.Fatal(err)
	}
	s.Gate = startGate(t, s.Rig, rig.GateOptions{Config: gateOf("www", listen, upstream, settings)})
	s.Site = &rig.Site{FastCGI: s.Gate.Addr}
	s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
}

// gateOf is the config of a gate.
func gateOf(name string, listen rig.Addr, upstream, settings string) string {
	return fmt.Sprintf("gate %q {\nlisten = %q\nupstream {\n%s\n}\n%s\n}\n", name, listen, upstream, settings)
}

func TestWorkersThatEndTheirConnectionsLoseNoRequest(t *testing.T) {
	t.Parallel()
	eachNetwork(t, func(t *testing.T, network rig.Addr) {
		s := newStack(t, stackOptions{
			PHP:  rig.PHPOptions{Listen: network, MaxRequests: 3},
			Site: rig.Site{Keepalive: 4},
		})
		posted := fmt.Sprintf("6 %x\n", sha256.Sum256([]byte("posted")))
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for i := range 250 {
					if i%5 == 0 {
						post := request{method: "POST", path: "/upload.php", body: strings.NewReader("posted")}
						ask(s.Site, post).mustBe(t, posted)
					} else {
						s.get("/hello.php", newSession()).mustBe(t, "hello\n")
					}
				}
			})
		}
		clients.Wait()
	})
}

// TestRequestsOfTheLengthThatTheFeedSetsIn end when the gate begins to watch for
// their web server's going: once, both waited for each other for ever.
func TestRequestsOfTheLengthThatTheFeedSetsIn(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{PHP: rig.PHPOptions{Workers: 10}})
	var clients sync.WaitGroup
	for i := range 10 {
		clients.Go(func() {
			for range 30 {
				s.get(fmt.Sprintf("/nosession.php?ms=%d", 18+i%3), "").mustBe(t, "no session\n")
			}
		})
	}
	clients.Wait()
}

func TestMaxConnectionsAreNeverExceeded(t *testing.T) {
	t.Parallel()
	s := newStackOf(t, rig.PHPOptions{Workers: 6}, "max_connections = 2", "")
	var answers []<-chan response
	for range 40 {
		answers = append(answers, s.begin("/busy.php?mark=busy&ms=5", ""))
	}
	for _, answer := range answers {
		(<-answer).mustBe(t, "")
	}
	running, most := 0, 0
	for _, note := range notes(t, s.Rig, "busy") {
		if note == "end" {
			running--
			continue
		}
		running++
		most = max(most, running)
	}
	if most != 2 {
		t.Errorf("scripts at once: got %d at most, want 2", most)
	}
}

func TestQueueTimeoutSendsTheRequestAway(t *testing.T) {
	t.Parallel()
	s := newStackOf(t, rig.PHPOptions{}, `
    max_connections = 1
    queue_timeout   = "1s"`, "")
	held := s.hold(t, "", "hold")
	session := newSession()
	for range 2 { // its lock is free again after the first
		mustBeSentAway(t, s.get("/hello.php", session), http.StatusServiceUnavailable, "1")
	}
	awaitLog(t, s.Web, "no upstream connection was free")
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	s.get("/hello.php", session).mustBe(t, "hello\n")
}

func TestAnAddressThatIsDownIsPassedOver(t *testing.T) {
	t.Parallel()
	s, other := newPair(t, 2, "")
	for _, down := range []*rig.PHPFPM{s.PHP, other} {
		if err := down.Stop(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			s.get("/hello.php", newSession()).mustBe(t, "hello\n")
		}
		if err := down.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheLeastBusyAddressIsAsked has one worker at each of two addresses: what
// is sent to the busy one would have to wait.
func TestTheLeastBusyAddressIsAsked(t *testing.T) {
	t.Parallel()
	s, _ := newPair(t, 1, "")
	held := s.hold(t, "", "hold")
	for range 10 {
		s.get("/hello.php", "").mustBe(t, "hello\n")
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
}

// TestAnAddressThatFailsItsPingIsPassedOver freezes a PHP-FPM: it still accepts
// connections, and answers none.
func TestAnAddressThatFailsItsPingIsPassedOver(t *testing.T) {
	t.Parallel()
	s, other := newPair(t, 2, `
    ping_path      = "`+rig.PingPath+`"
    probe_interval = "200ms"`)
	if err := other.Freeze(); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "upstream ping failed: upstream="+other.Addr.String())
	var answers []<-chan response
	for range 10 {
		answers = append(answers, s.begin("/hello.php", ""))
	}
	for _, answer := range answers {
		(<-answer).mustBe(t, "hello\n")
	}
	if err := other.Thaw(); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "upstream answers its ping again: upstream="+other.Addr.String())
}

// TestARequestThatAWorkerTookIsNotSentTwice has workers die at work on connections that
// may have served a request before. The gate sends a request again if its connection had
// been closed before; what these have done must not be done again. A relay turns the reset
// of a worker that dies into a clean end, as docker-proxy and HAProxy in TCP mode do.
func TestARequestThatAWorkerTookIsNotSentTwice(t *testing.T) {
	t.Parallel()
	for name, network := range map[string]rig.Addr{"unix": rig.Unix, "tcp": rig.TCP, "tcp through a relay": rig.TCP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stack{Rig: newRig(t, "nginx", "php-fpm")}
			s.PHP = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{Listen: network, Workers: 2})
			upstream := s.PHP.Addr.String()
			if name == "tcp through a relay" {
				upstream = startRelay(t, s.PHP.Addr.Address)
			}
			s.serve(t, fmt.Sprintf(`address = %q
    max_connections = 1
    reuse           = "1m"
    idle            = "1m"`, upstream), "")
			var want []string
			for i, q := range []request{
				{method: "GET"},
				{method: "POST", body: strings.NewReader("a=1")},
				{method: "PUT", body: strings.NewReader(strings.Repeat("x", 1<<20))},
			} {
				for range 3 { // the connection is pooled now, if connections are
					s.get("/hello.php", "").mustBe(t, "hello\n")
				}
				want = append(want, fmt.Sprint(i))
				q.path = "/once.php?mark=once&say=" + want[i]
				if r := ask(s.Site, q); r.status != http.StatusBadGateway {
					t.Errorf("%s: got status %d and error %v, want 502", q.method, r.status, r.err)
				}
			}
			if got := notes(t, s.Rig, "once"); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// startRelay passes TCP connections on to address, and ends both sides cleanly whatever ends one of them.
func startRelay(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pass := func(to, from *net.TCPConn) {
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil {
				in.Close()
				continue
			}
			go pass(out.(*net.TCPConn), in.(*net.TCPConn))
			go pass(in.(*net.TCPConn), out.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

func TestABodyIsPassedOnWhileItComes(t *testing.T) {
	t.Parallel()
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		s := newStack(t, stackOptions{
			PHP:  rig.PHPOptions{Listen: network},
			Gate: rig.GateOptions{Listen: network},
			Site: rig.Site{Unbuffered: true},
		})
		body, send := io.Pipe()
		// PHP reads the body of a POST before the script begins, and that of a
		// PUT in blocks of 16 KiB.
		first, second := strings.Repeat(strings.Repeat("x", 1<<14)+"\n", 4), "last\n"
		answer := begin(s.Site, request{
			method:  "PUT",
			path:    "/reads.php?mark=body",
			session: newSession(),
			body:    body,
			length:  int64(len(first + second)),
		})
		io.WriteString(send, first)
		awaitMark(t, s.Rig, "body.first")
		io.WriteString(send, second)
		send.Close()
		(<-answer).mustBe(t, "5\n")
	}
}
