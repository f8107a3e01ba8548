package tests

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// drained starts a stack with a request that holds a session and two that wait
// for it, and tells the gate to end.
func drained(t *testing.T, timeout string) (s *stack, held <-chan response, waiting []<-chan response) {
	t.Helper()
	s = newStack(t, stackOptions{
		Gate: rig.GateOptions{Settings: queueRoutes(2), Args: []string{"--drain-timeout", timeout}},
		Site: rig.Site{Unbuffered: true},
	})
	session := newSession()
	held = s.begin("/wait.php?flush=1&mark=hold", session)
	awaitMark(t, s.Rig, "hold.started")
	for i := range 2 {
		waiting = append(waiting, s.begin("/hello.php", session))
		s.awaitQueue(t, session, i+1)
	}
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "draining")
	return s, held, waiting
}

func TestSIGTERMServesWhatIsThere(t *testing.T) {
	t.Parallel()
	s, held, waiting := drained(t, "30s")
	eventually(t, "the gate accepts nothing more", func() bool {
		return s.get("/hello.php", "").status == http.StatusBadGateway
	})
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "first\nlast\n")
	for _, answer := range waiting {
		(<-answer).mustBe(t, "hello\n")
	}
	s.mustExit(t, 0)
}

func TestWaitersAreSentAwayWhenTheDrainIsOver(t *testing.T) {
	t.Parallel()
	s, held, waiting := drained(t, "100ms")
	for _, answer := range waiting {
		mustBeSentAway(t, <-answer, http.StatusServiceUnavailable, "1")
	}
	letGo(t, s.Rig, "hold") // a script that runs is given a moment more
	(<-held).mustBe(t, "first\nlast\n")
	s.mustExit(t, 0)
}

func TestAScriptThatOutlivesTheDrainIsBrokenOff(t *testing.T) {
	t.Parallel()
	s, held, _ := drained(t, "100ms")
	if r := <-held; r.failure() == nil {
		t.Errorf("got a whole response with %q, want an error", r.body)
	}
	s.mustExit(t, 1)
	if !strings.Contains(s.Gate.Log(), "requests still running") {
		t.Errorf("the log does not say that requests were still running")
	}
	letGo(t, s.Rig, "hold")
}

func TestASecondSIGTERMEndsAtOnce(t *testing.T) {
	t.Parallel()
	s, held, waiting := drained(t, "30s")
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.mustExit(t, 1)
	for _, answer := range append(waiting, held) {
		<-answer
	}
	letGo(t, s.Rig, "hold")
}

// mustExit waits for the gate's end.
func (s *stack) mustExit(t *testing.T, code int) {
	t.Helper()
	<-s.Gate.Exited()
	if got := s.Gate.ExitCode(); got != code {
		t.Errorf("exit code: got %d, want %d", got, code)
	}
}

// activated is a gate on a socket that is open before and after it, as under systemd.
type activated struct {
	t      *testing.T
	socket *os.File
	config string
	log    *os.File
	cmd    *exec.Cmd
	binary string   // gateBinary if empty
	args   []string // more of serve
	env    []string
}

// activate starts a gate for php, and returns it with the address where it listens.
func activate(t *testing.T, r *rig.Rig, network string, php rig.Addr, change ...func(*activated)) (*activated, rig.Addr) {
	t.Helper()
	address := map[string]string{"unix": filepath.Join(t.TempDir(), "gate.sock"), "tcp": "127.0.0.1:0"}[network]
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if network == "unix" {
		if err := os.Chmod(address, 0o777); err != nil { // Apache and nginx are not root
			t.Fatal(err)
		}
	}
	a := &activated{t: t, config: filepath.Join(t.TempDir(), "fpm-gate.hcl")}
	if a.socket, err = l.(interface{ File() (*os.File, error) }).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.socket.Close() })
	if a.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("gate \"www\" {\n  listen = \"systemd:www\"\n  upstream { address = %q }\n}\n", php)
	if err := os.WriteFile(a.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(a)
	}
	a.start()
	t.Cleanup(func() {
		a.stop()
		text, _ := os.ReadFile(a.log.Name())
		checkLog(t, "fpm-gate", string(text))
		if t.Failed() {
			t.Logf("log of fpm-gate:\n%s", text)
		}
	})
	return a, rig.Addr{Network: network, Address: l.Addr().String()}
}

func (a *activated) start() {
	a.t.Helper()
	script := `LISTEN_PID=$$ exec "$@"`
	args := []string{"-c", script, "sh", cmp.Or(a.binary, gateBinary), "serve", "--config", a.config, "--drain-timeout", "1m"}
	a.cmd = exec.Command("sh", append(args, a.args...)...)
	a.cmd.Env = append(append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=www", raceOptions), a.env...)
	a.cmd.ExtraFiles = []*os.File{a.socket}
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
}

// stop ends the gate, and waits until it has served what was there.
func (a *activated) stop() {
	a.t.Helper()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		a.t.Error(err)
	}
	if err := a.cmd.Wait(); err != nil {
		a.t.Errorf("the gate's end: %v", err)
	}
}

// A web server does not send a POST again. So what it sends on a kept connection must be served, whenever the gate
// restarts. Apache is left out: it looks for the end of a connection before it sends, and what ends in between is lost.
func TestRestartsLoseNoPOST(t *testing.T) {
	for _, web := range webServers {
		for _, network := range []string{"unix", "tcp"} {
			if web.keepalive > 0 && web.program != "apache2" {
				t.Run(web.name+" over "+network, func(t *testing.T) { restartUnderPOSTs(t, web, network) })
			}
		}
	}
}

// restartUnderPOSTs restarts a gate under clients that send POSTs without a pause.
func restartUnderPOSTs(t *testing.T, web webServer, network string) {
	r := newRig(t, web.program, "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 8})
	gate, address := activate(t, r, network, php.Addr)
	site := &rig.Site{FastCGI: address, Keepalive: 8}
	web.start(t, r, site)

	var clients sync.WaitGroup
	var sent, lost atomic.Int64
	over := make(chan struct{})
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				answer := ask(site, request{method: "POST", path: "/hello.php", body: strings.NewReader("posted"), length: 6})
				sent.Add(1)
				if answer.err != nil || answer.status != http.StatusOK || answer.body != "hello\n" {
					lost.Add(1)
				}
			}
		})
	}
	const restarts = 8
	for range restarts {
		before := sent.Load()
		eventually(t, "the gate serves", func() bool { return sent.Load() > before+100 })
		gate.stop()
		gate.start()
	}
	close(over)
	clients.Wait()
	t.Logf("%d POSTs in %d restarts", sent.Load(), restarts)
	if n := lost.Load(); n > 0 {
		t.Errorf("%d of %d POSTs are lost in %d restarts", n, sent.Load(), restarts)
	}
}

// TestAWebServerThatGetsNoCPULosesNoPOST has a web server stand still for a second, with a POST in its hands, while the
// gate ends: it sends the POST on the kept connection all the same.
func TestAWebServerThatGetsNoCPULosesNoPOST(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*rig.Rig, *rig.Site) (*rig.Server, error){
		"nginx": func(r *rig.Rig, site *rig.Site) (*rig.Server, error) {
			return r.Nginx(rig.NginxOptions{Sites: []*rig.Site{site}})
		},
		"haproxy": (*rig.Rig).HAProxy,
	} {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(name+" over "+network, func(t *testing.T) {
				r := newRig(t, name, "php-fpm")
				php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
				gate, address := activate(t, r, network, php.Addr)
				site := &rig.Site{FastCGI: address, Keepalive: 8}
				web, err := start(r, site)
				mustDo(t, err)
				client := dialPoster(t, site)
				client.post()
				client.mustGetHello()

				mustDo(t, web.Freeze())
				client.post()
				mustDo(t, gate.cmd.Process.Signal(syscall.SIGTERM))
				time.Sleep(time.Second)
				mustDo(t, web.Thaw())
				mustDo(t, gate.cmd.Wait())
				gate.start()
				client.mustGetHello()
				client.post()
				client.mustGetHello()
			})
		}
	}
}

// poster sends POSTs on one connection, and reads their answers later.
type poster struct {
	t    *testing.T
	site *rig.Site
	net.Conn
	answers *bufio.Reader
}

func dialPoster(t *testing.T, site *rig.Site) *poster {
	t.Helper()
	nc, err := net.Dial("tcp", site.Listen.Address)
	mustDo(t, err)
	t.Cleanup(func() { nc.Close() })
	mustDo(t, nc.SetDeadline(time.Now().Add(requestTimeout)))
	return &poster{t, site, nc, bufio.NewReader(nc)}
}

func (b *poster) post() {
	b.t.Helper()
	_, err := fmt.Fprintf(b, "POST /hello.php HTTP/1.1\r\nHost: %s\r\nContent-Length: 6\r\n\r\nposted", b.site.Listen.Address)
	mustDo(b.t, err)
}

func (b *poster) mustGetHello() {
	b.t.Helper()
	resp, err := http.ReadResponse(b.answers, nil)
	mustDo(b.t, err)
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello\n" {
		b.t.Errorf("got status %d and %.200q, %v", resp.StatusCode, body, err)
	}
}
