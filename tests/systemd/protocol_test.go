package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests speak systemd's protocols with the program themselves, so they need neither root nor systemd.

func TestSystemdIsToldHowTheServiceStands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := listenToNotify(t, dir)
	right := unixConfig(dir, "www")
	g := startGate(t, gateOptions{config: right, env: []string{"NOTIFY_SOCKET=" + told.path}})
	told.await("READY=1", "STATUS=gates: 1, connections: 0")

	g.reload(t, right+unixConfig(dir, "more"))
	began := told.await("RELOADING=1", "MONOTONIC_USEC=")
	var usec int64
	if _, err := fmt.Sscanf(began[strings.Index(began, "MONOTONIC_USEC="):], "MONOTONIC_USEC=%d", &usec); err != nil || usec <= 0 {
		t.Errorf("got %q (%v), want the time of the begin", began, err)
	}
	told.await("READY=1", "STATUS=gates: 2")

	g.reload(t, "gate \"www\" {}\n")
	told.await("RELOADING=1")
	told.await("READY=1", "STATUS=gates: 2", "config file invalid, still serving the previous one")
	g.reload(t, right)
	told.await("RELOADING=1")
	if status := told.await("READY=1", "STATUS=gates: 1"); strings.Contains(status, "wrong") {
		t.Errorf("after a right config: got %q", status)
	}

	g.signal(t, syscall.SIGTERM)
	told.await("STOPPING=1")
	if code := g.wait(t); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

func TestTheWatchdogIsFed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := listenToNotify(t, dir)
	startGate(t, gateOptions{config: unixConfig(dir, "www"), env: []string{"NOTIFY_SOCKET=" + told.path, "WATCHDOG_USEC=150000"}})
	told.await("READY=1")
	for range 3 {
		told.await("WATCHDOG=1", "STATUS=gates: 1")
	}
}

func TestSocketsOfOneNameAreAllServedAndOutliveTheGate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "passed.sock")
	passed, other := listenAt(t, "unix", path), listenAt(t, "tcp", "127.0.0.1:0")
	g := startGate(t, gateOptions{
		config: systemdConfig("www"),
		passed: []net.Listener{passed, other},
		names:  "www:www",
	})
	for _, l := range []net.Listener{passed, other} {
		checkAnswers(t, l.Addr())
	}
	g.signal(t, syscall.SIGTERM)
	if code := g.wait(t); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket is systemd's to remove: got %v", err)
	}
	// A client that connects now waits for the next process.
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestASocketCanBeLeftAndTakenAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	passed := listenAt(t, "unix", filepath.Join(dir, "passed.sock"))
	both := systemdConfig("www") + unixConfig(dir, "more")
	g := startGate(t, gateOptions{config: both, passed: []net.Listener{passed}, names: "www"})
	checkAnswers(t, passed.Addr())
	g.reload(t, unixConfig(dir, "more"))
	g.awaitLog(t, `unused socket from systemd: connections to it will hang; give a gate its listen, or disable it: socket=www listen=systemd:www`)
	g.reload(t, both)
	checkAnswers(t, passed.Addr())
}

func TestSocketsThatCannotBeServedEndTheStart(t *testing.T) {
	t.Parallel()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, tt := range []struct {
		name   string
		passed []net.Listener
		extra  filer
		names  string
		code   int
		says   string
	}{
		{name: "none is passed", code: 1, says: "systemd has passed no socket of that name; it has passed none"},
		{name: "one of another name", passed: []net.Listener{listenAt(t, "tcp", "127.0.0.1:0")}, names: "web", code: 1, says: `it has passed "web"`},
		{name: "one that does not listen", extra: udp.(*net.UDPConn), names: "www", code: 1, says: "it does not listen: the socket unit needs ListenStream="},
	} {
		g := startGate(t, gateOptions{config: systemdConfig("www"), passed: tt.passed, extra: tt.extra, names: tt.names, ends: true})
		if code := g.wait(t); code != tt.code || !strings.Contains(g.log(t), tt.says) {
			t.Errorf("%s: got exit code %d and %q, want %d and %q", tt.name, code, g.log(t), tt.code, tt.says)
		}
	}
}

// No process answers a client that waits in systemd's socket if the start fails, so it must not wait for the next one.
func TestAStartThatFailsRefusesWhoWaits(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"an invalid config":    "gate \"www\" {}\n",
		"a folder is missing":  "admin { listen = \"unix:/no/such/folder/s\" }\n" + systemdConfig("www"),
		"a socket is missing":  systemdConfig("www") + systemdConfig("shop"),
		"no config at all":     "",
		"a socket of its name": unixConfig(t.TempDir(), "www") + systemdConfig("shop"),
	} {
		for _, network := range []string{"unix", "tcp"} {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "passed.sock")
			}
			passed := listenAt(t, network, address)
			var waiting []net.Conn
			for range 3 {
				nc, err := net.Dial(network, passed.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				if _, err := nc.Write([]byte("a request")); err != nil {
					t.Fatal(err)
				}
				waiting = append(waiting, nc)
			}
			g := startGate(t, gateOptions{config: config, passed: []net.Listener{passed}, names: "www", ends: true})
			if code := g.wait(t); code == 0 {
				t.Errorf("%s: got exit code 0, want that it fails", name)
			}
			for _, nc := range waiting {
				_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
				if _, err := nc.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s, %s: got %v, want the end of the connection", name, network, err)
				}
			}
			nc, err := net.Dial(network, passed.Addr().String())
			if err != nil {
				t.Errorf("%s, %s: the socket is gone: %v", name, network, err)
				continue
			}
			nc.Close()
		}
	}
}

func TestTheJournalGetsPriorities(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, config string
		want         []string // each begins a line
	}{
		{"a text", unixConfig(t.TempDir(), "www"), []string{"<6>[INFO]  fpm-gate: listening: "}},
		{"json", `log { format = "json" }` + "\n" + unixConfig(t.TempDir(), "www"), []string{`<6>{"@level":"info"`}},
		{"a wrong config", "gate \"www\" {\n  listen = 1\n}\n", []string{"<3>Error: ", "<3>  on "}},
	} {
		g := startGate(t, gateOptions{config: tt.config, journal: true, ends: true})
		for _, want := range tt.want {
			g.awaitLog(t, want)
		}
		for line := range strings.Lines(g.log(t)) {
			if !strings.HasPrefix(line, "<") {
				t.Errorf("%s: the line %q has no priority", tt.name, line)
			}
		}
	}
}

func TestAShellGetsNoPriorities(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{config: unixConfig(t.TempDir(), "www")})
	g.awaitLog(t, "serving")
	if log := g.log(t); strings.Contains(log, "<6>") {
		t.Errorf("got %q, want no priorities", log)
	}
}

// gateOptions say how systemd would start the program.
type gateOptions struct {
	config  string
	env     []string
	passed  []net.Listener // sockets
	extra   filer          // one more
	names   string         // of the sockets, with colons
	journal bool           // stderr is the journal
	ends    bool           // it may end by itself
}

type filer interface{ File() (*os.File, error) }

// gateProcess is the program as systemd would have started it.
type gateProcess struct {
	cmd    *exec.Cmd
	config string
	stderr string
	exited chan struct{}
}

func startGate(t *testing.T, o gateOptions) *gateProcess {
	t.Helper()
	binary, err := gateBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := &gateProcess{config: filepath.Join(dir, "fpm-gate.hcl"), stderr: filepath.Join(dir, "stderr"), exited: make(chan struct{})}
	g.write(t, o.config)
	stderr, err := os.Create(g.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	// A shell knows the process id that the program is going to have.
	g.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, binary, "serve", "--config", g.config, "--drain-timeout", "1s")
	g.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=20")
	g.cmd.Env = append(g.cmd.Env, o.env...)
	g.cmd.Stderr = stderr
	if o.journal {
		info, err := stderr.Stat()
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		g.cmd.Env = append(g.cmd.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
	}
	g.pass(t, o)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(g.exited)
		_ = g.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		<-g.exited
		if log := g.log(t); t.Failed() || strings.Contains(log, "DATA RACE") {
			t.Errorf("stderr of the gate:\n%s", log)
		}
	})
	if !o.ends {
		g.awaitLog(t, "serving: ")
	}
	return g
}

// pass has the process inherit its sockets, as sd_listen_fds(3) says.
func (g *gateProcess) pass(t *testing.T, o gateOptions) {
	t.Helper()
	var all []filer
	for _, l := range o.passed {
		all = append(all, l.(filer))
	}
	if o.extra != nil {
		all = append(all, o.extra)
	}
	for _, l := range all {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		g.cmd.ExtraFiles = append(g.cmd.ExtraFiles, f)
	}
	if len(all) > 0 {
		g.cmd.Env = append(g.cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(all)), "LISTEN_FDNAMES="+o.names)
	}
}

func (g *gateProcess) write(t *testing.T, config string) {
	t.Helper()
	if err := os.WriteFile(g.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reload has the gate take another config, and waits until it has or has said why not.
func (g *gateProcess) reload(t *testing.T, config string) {
	t.Helper()
	done := func() int {
		return strings.Count(g.log(t), "reloaded: ") + strings.Count(g.log(t), "keeping the running one")
	}
	before := done()
	g.write(t, config)
	g.signal(t, syscall.SIGHUP)
	eventually(t, "the gate has reloaded", func() bool { return done() > before })
}

func (g *gateProcess) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// wait waits for the end of the process and returns its exit code.
func (g *gateProcess) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-g.exited:
	case <-time.After(time.Minute):
		t.Fatal("the gate has not ended")
	}
	return g.cmd.ProcessState.ExitCode()
}

func (g *gateProcess) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(g.stderr)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (g *gateProcess) awaitLog(t *testing.T, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the log has %q", text), func() bool { return strings.Contains(g.log(t), text) })
}

// gateBinary builds the program, once. TestMain removes it.
var gateBinary = sync.OnceValues(func() (string, error) {
	var err error
	if binaryDir, err = os.MkdirTemp("", "fpm-gate-binary-"); err != nil {
		return "", err
	}
	binary := filepath.Join(binaryDir, "fpm-gate")
	if out, err := exec.Command("go", "build", "-race", "-o", binary, "../../cmd/fpm-gate").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return binary, nil
})

var binaryDir string

// unixConfig is a gate that listens on a socket of its own.
func unixConfig(dir, name string) string {
	return fmt.Sprintf("gate %q {\n  listen = \"unix:%s/%s.sock\"\n  upstream { address = \"unix:/no/such.sock\" }\n}\n", name, dir, name)
}

// systemdConfig is a gate that listens on a socket of systemd's.
func systemdConfig(name string) string {
	return fmt.Sprintf("gate %q {\n  listen = \"systemd:%s\"\n  upstream { address = \"unix:/no/such.sock\" }\n}\n", name, name)
}

func listenAt(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// checkAnswers asks for the values of a FastCGI application, which no PHP-FPM is needed for.
func checkAnswers(t *testing.T, a net.Addr) {
	t.Helper()
	nc, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	const getValues, getValuesResult = 9, 10
	if _, err := nc.Write([]byte{1, getValues, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 8)
	if _, err := io.ReadFull(nc, answer); err != nil || answer[1] != getValuesResult {
		t.Errorf("%s: got %v (%v), want the record of type %d", a, answer, err, getValuesResult)
	}
}

// notifications are what a service tells systemd.
type notifications struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func listenToNotify(t *testing.T, dir string) *notifications {
	t.Helper()
	path := filepath.Join(dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notifications{t, conn, path}
}

// await returns the next notification, which must have all of these in it.
func (n *notifications) await(want ...string) string {
	n.t.Helper()
	buf := make([]byte, 4096)
	_ = n.conn.SetReadDeadline(time.Now().Add(time.Minute))
	size, err := n.conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n.t.Fatalf("got no message, want %q", want)
	} else if err != nil {
		n.t.Fatal(err)
	}
	for _, w := range want {
		if !bytes.Contains(buf[:size], []byte(w)) {
			n.t.Errorf("got %q, want %q in it", buf[:size], w)
		}
	}
	return string(buf[:size])
}
