package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// run runs the program to its end, which must come soon.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, gateBinary, args...)
	cmd.Env = append(os.Environ(), raceOptions)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	checkLog(t, "fpm-gate "+strings.Join(args, " "), errOut.String())
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// configFile writes a config to a file of the test.
func configFile(t *testing.T, config string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fpm-gate.hcl")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const rightConfig = `gate "www" {
  listen = "unix:/tmp/never-opened.sock"
  upstream { address = "unix:/tmp/never-dialled.sock" }
}
`

func TestExitCodesTellWrongUsageFromFailure(t *testing.T) {
	t.Parallel()
	right := configFile(t, rightConfig)
	wrong := configFile(t, strings.Replace(rightConfig, "upstream", "expire = 1\nupstream", 1))
	unserveable := configFile(t, strings.Replace(rightConfig, "/tmp/", "/tmp/no/such/folder/", 1))
	for _, tt := range []struct {
		args string
		code int
		says string // on stderr, or on stdout where the code is 0
	}{
		{"version", 0, "fpm-gate " + gateVersion},
		{"--version", 0, gateVersion},
		{"--help", 0, "Exit codes"},
		{"help serve", 0, "--drain-timeout"},
		{"check --config " + right, 0, "configuration is valid"},
		{"check -c " + right, 0, `gate "www": unix:/tmp/never-opened.sock to unix:/tmp/never-dialled.sock`},

		{"", 2, "no command given"},
		{"sreve", 2, `did you mean "serve"`},
		{"version now", 2, "unexpected argument"},
		{"check", 2, "--config is required"},
		{"check --config " + right + " --probes", 2, "unknown flag"},
		{"check --config /no/such/file.hcl", 2, "/no/such/file.hcl"},
		{"check --config " + wrong, 2, wrong},
		{"serve", 2, "--config FILE"},
		{"serve --listen unix:/tmp/x.sock", 2, "--upstream"},
		{"serve --config " + right + " --listen unix:/tmp/x.sock --upstream 127.0.0.1:9000", 2, "--config FILE"},
		{"serve --listen /tmp/x.sock --upstream 127.0.0.1:9000", 2, "unix:/tmp/x.sock"},
		{"serve --config " + wrong, 2, "expire"},
		{"serve --config " + right + " --drain-timeout soon", 2, "drain-timeout"},

		{"check --probe --config " + right, 1, "1 upstream address failed the probe"},
		{"serve --config " + unserveable, 1, "/tmp/no/such/folder"},
	} {
		code, stdout, stderr := run(t, strings.Fields(tt.args)...)
		if code != tt.code {
			t.Errorf("fpm-gate %s: got exit code %d, want %d; %s", tt.args, code, tt.code, stderr)
		}
		said := stderr
		if tt.code == 0 {
			said = stdout
		}
		if !strings.Contains(said, tt.says) {
			t.Errorf("fpm-gate %s: got %q and on stderr %q, want %q", tt.args, stdout, stderr, tt.says)
		}
	}
}

func TestCheckShowsAllErrorsWithTheirPlaces(t *testing.T) {
	t.Parallel()
	path := configFile(t, `gate "www" {
  listen = "unix:/tmp/never-opened.sock"
  upstream { address = "unix:/tmp/never-dialled.sock" }
  lock {
    max_wait = "-1s"
    status   = 200
  }
  route "a" { mode = "excl" }
}
log { level = "loud" }
`)
	code, _, stderr := run(t, "check", "--config", path)
	if code != 2 {
		t.Errorf("exit code: got %d, want 2", code)
	}
	for line, key := range map[int]string{5: "max_wait", 6: "status", 8: "mode", 10: "level"} {
		if place := fmt.Sprintf("%s line %d", path, line); !strings.Contains(stderr, place) || !strings.Contains(stderr, key) {
			t.Errorf("got %s, want %s at %s in it", stderr, key, place)
		}
	}
}

func TestTheSampleConfigIsRight(t *testing.T) {
	t.Parallel()
	if code, _, stderr := run(t, "check", "--file-only", "--config", "../config/fpm-gate.hcl"); code != 0 {
		t.Errorf("got exit code %d and %s, want 0", code, stderr)
	}
}

// Whatever keeps a config from being served, check says so as serve does, and a reload leaves the running one.
func TestCheckAndServeAgree(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "judge-") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file, noPEM := filepath.Join(dir, "file"), filepath.Join(dir, "no.pem")
	for _, path := range []string{file, noPEM} {
		if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gate := func(listen, more string) string {
		return gateOf("www", rig.ParseAddr(listen), `address = "unix:/tmp/never-dialled.sock"`, more)
	}
	right := "unix:" + dir + "/gate.sock"
	running := start(t, "serve", "--config", configFile(t, gate(right, "")))
	eventually(t, "it listens", func() bool { return accepts(rig.ParseAddr(right)) })
	free := "unix:" + dir + "/free.sock"
	tls := func(keys string) string {
		return "memcached {\nservers = [\"127.0.0.1:1\"]\nsecret = \"x\"\ntls {\n" + keys + "\n}\n}\n" + gate(free, `lock { store = "memcached" }`)
	}
	for _, tt := range []struct{ name, config, says string }{
		{"an unknown group", gate(free, `listen_group = "no-such-group"`), "unknown group no-such-group"},
		{"an unknown owner", gate(free, `listen_owner = "no-such-user"`), "unknown user no-such-user"},
		{"a folder that is not there", gate("unix:"+dir+"/no/gate.sock", ""), dir + "/no: no such file"},
		{"a folder that is a file", gate("unix:"+file+"/gate.sock", ""), "is a file"},
		{"a file in its place", gate("unix:"+file, ""), "a file that is not a socket"},
		{"a folder that no user may write", gate("unix:/proc/gate.sock", ""), "create a socket in /proc"},
		{"an address of another host", gate("192.0.2.1:9000", ""), "cannot assign requested address"},
		{"a host that is not there", gate("no-such-host.invalid:9000", ""), "no-such-host.invalid"},
		{"the same of the admin", fmt.Sprintf("admin { listen = \"unix:%s/no/admin.sock\" }\n", dir) + gate(free, ""), "admin: listen on unix:" + dir},
		{"a ca that is not there", tls(fmt.Sprintf("ca = %q", dir+"/no.ca")), dir + "/no.ca"},
		{"a ca that is none", tls(fmt.Sprintf("ca = %q", noPEM)), "there is no certificate in " + noPEM},
		{"a certificate that is none", tls(fmt.Sprintf("cert = %q\nkey = %q", noPEM, noPEM)), "cert and key"},
		{"two at once", gate(free, `listen_group = "no-such-group"`) + strings.Replace(gate("unix:"+dir+"/no/gate.sock", ""), "www", "shop", 1), "no-such-group\n"},
	} {
		path := configFile(t, tt.config)
		_, _, checked := run(t, "check", "--config", path)
		for _, command := range []string{"check", "serve"} {
			code, _, stderr := run(t, command, "--config", path)
			if code != 1 || !strings.Contains(stderr, tt.says) {
				t.Errorf("%s, %s: got exit code %d and %q, want 1 and %q", tt.name, command, code, stderr, tt.says)
			}
			if command == "check" {
				continue
			}
			for line := range strings.Lines(stderr) {
				if !strings.Contains(checked, strings.TrimPrefix(line, "fpm-gate: ")) {
					t.Errorf("%s: check says %q, and serve %q", tt.name, checked, line)
				}
			}
		}
		if code, _, stderr := run(t, "check", "--file-only", "--config", path); code != 0 {
			t.Errorf("%s, --file-only: got exit code %d and %q, want 0", tt.name, code, stderr)
		}
		refused := strings.Count(running.log(), "keeping the running one")
		if err := os.WriteFile(running.cmd.Args[3], []byte(tt.config), 0o644); err != nil {
			t.Fatal(err)
		}
		running.signal(t, syscall.SIGHUP)
		eventually(t, tt.name+": the reload is refused", func() bool { return strings.Count(running.log(), "keeping the running one") > refused })
	}
	if left, err := filepath.Glob(dir + "/.*"); err != nil || len(left) > 0 {
		t.Errorf("got %v and error %v, want that nothing is left", left, err)
	}
	if !accepts(rig.ParseAddr(right)) {
		t.Error("the running gate no longer accepts")
	}
}

// A right config is right while its gate runs, too, on every kind of address.
func TestCheckOfARunningGate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, network := range []string{"unix", "tcp"} {
		listen, err := r.Reserve(network, "gate-"+network)
		if err != nil {
			t.Fatal(err)
		}
		g := startGate(t, r, rig.GateOptions{Config: gateOf("www", listen, `address = "127.0.0.1:9"`, "")})
		if code, _, stderr := run(t, "check", "--config", g.ConfigFile()); code != 0 {
			t.Errorf("%s: got exit code %d and %q, want 0", network, code, stderr)
		}
		if !accepts(listen) {
			t.Errorf("%s: the gate no longer accepts", network)
		}
	}
}

// Each signal by which programs around PHP-FPM are ended well lets requests come to their end.
func TestEachSignalToEndDrains(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			s := newStack(t, stackOptions{Gate: rig.GateOptions{Args: []string{"--drain-timeout", "30s"}}})
			held := s.hold(t, newSession(), "hold")
			if err := s.Gate.Signal(sig); err != nil {
				t.Fatal(err)
			}
			awaitLog(t, s.Gate.Server, "draining")
			letGo(t, s.Rig, "hold")
			(<-held).mustBe(t, "last\n")
			s.mustExit(t, 0)
		})
	}
}

func TestCheckProbesPHPFPM(t *testing.T) {
	t.Parallel()
	r := newRig(t, "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 3})
	upstream := fmt.Sprintf(`
    address     = %q
    ping_path   = %q
    status_path = %q`, php.Addr, rig.PingPath, rig.StatusPath)
	config := gateOf("www", rig.ParseAddr("unix:/tmp/never-opened.sock"), upstream, "")
	code, stdout, stderr := run(t, "check", "--probe", "--config", configFile(t, config))
	if code != 0 || !strings.Contains(stdout, "answers its ping") || !strings.Contains(stdout, `pool "www" has 3 workers`) {
		t.Errorf("got exit code %d, %q and %q", code, stdout, stderr)
	}

	wrong := configFile(t, strings.Replace(config, rig.PingPath, "/elsewhere", 1))
	code, stdout, _ = run(t, "check", "--probe", "--config", wrong)
	if code != 1 || !strings.Contains(stdout, "Primary script unknown") {
		t.Errorf("with a wrong ping_path: got exit code %d and %q", code, stdout)
	}
}

// Problems of this machine are on a line each, and keep nothing from being probed.
func TestCheckProbesInSpiteOfProblems(t *testing.T) {
	t.Parallel()
	r := newRig(t, "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	upstream := fmt.Sprintf("address = %q\nping_path = %q", php.Addr, rig.PingPath)
	config := gateOf("www", rig.ParseAddr("unix:/nowhere/www.sock"), upstream, `lock { store = "memcached" }`) +
		gateOf("shop", rig.ParseAddr("unix:/nowhere/shop.sock"), upstream, "") +
		"memcached {\nservers = [\"127.0.0.1:1\"]\ntls { ca = \"/nowhere/ca.pem\" }\n}\n"
	code, stdout, stderr := run(t, "check", "--probe", "--config", configFile(t, config))
	if code != 1 || strings.Count(stdout, "answers its ping") != 2 || strings.Contains(stdout, "configuration is valid") {
		t.Errorf("got exit code %d and %q, want 1 and two probes", code, stdout)
	}
	_, list, _ := strings.Cut(stderr, "cannot be served on this machine:\n")
	for _, problem := range []string{"  memcached: tls: ca: ", "  gate \"www\": listen on ", "  gate \"shop\": listen on "} {
		line, rest, _ := strings.Cut(list, "\n")
		if list = rest; !strings.HasPrefix(line, problem) {
			t.Errorf("got the line %q, want one that begins with %q", line, problem)
		}
	}
}

func TestServeWithoutAConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t, "nginx", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	listen, err := r.Reserve("unix", "gate")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "serve", "--listen", listen.String(), "--upstream", php.Addr.String())
	eventually(t, "it listens", func() bool { return accepts(listen) })
	site := &rig.Site{FastCGI: listen}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	ask(site, request{path: "/hello.php", session: newSession()}).mustBe(t, "hello\n")

	p.signal(t, syscall.SIGHUP)
	eventually(t, "it has said that there is nothing to reload", func() bool { return strings.Contains(p.log(), "nothing to reload") })
	ask(site, request{path: "/hello.php", session: newSession()}).mustBe(t, "hello\n")
	p.signal(t, syscall.SIGINT)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if _, err := os.Lstat(listen.Address); err == nil {
		t.Error("its socket is still there")
	}
}

// process is the program, run concurrently with the test.
type process struct {
	cmd     *exec.Cmd
	logFile string
	exited  chan struct{}
}

// start runs the program until the test ends, at the latest.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{cmd: exec.Command(gateBinary, args...), logFile: log.Name(), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), raceOptions)
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		checkLog(t, "fpm-gate", p.log())
	})
	return p
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func (p *process) exitCode(t *testing.T) int {
	t.Helper()
	eventually(t, "it has ended", func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) log() string {
	text, _ := os.ReadFile(p.logFile)
	return string(text)
}

func TestASocketIsTakenOverFromTheDeadOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate.sock")
	serve := []string{"serve", "--listen", "unix:" + path, "--upstream", "127.0.0.1:9"}

	left, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, serve...); code != 1 || !strings.Contains(stderr, "another process is listening") {
		t.Errorf("while another process listens: got exit code %d and %q", code, stderr)
	}
	left.SetUnlinkOnClose(false)
	left.Close()

	first := start(t, serve...)
	eventually(t, "it has taken the socket over", func() bool { return accepts(rig.ParseAddr("unix:" + path)) })
	if code, _, stderr := run(t, serve...); code != 1 || !strings.Contains(stderr, "another process is listening") {
		t.Errorf("while a gate listens: got exit code %d and %q", code, stderr)
	}
	if !accepts(rig.ParseAddr("unix:" + path)) {
		t.Error("the one that was refused took the socket along")
	}
	first.signal(t, syscall.SIGKILL)
	first.exitCode(t)
	start(t, serve...)
	eventually(t, "the next has taken the socket over", func() bool { return accepts(rig.ParseAddr("unix:" + path)) })
}

func TestAFileIsNotTakenForASocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gate.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := run(t, "serve", "--listen", "unix:"+path, "--upstream", "127.0.0.1:9")
	if code != 1 || !strings.Contains(stderr, "not a socket") {
		t.Errorf("got exit code %d and %q", code, stderr)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file: got %q and error %v", text, err)
	}
}

func TestAPortThatIsTakenIsRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, _, stderr := run(t, "serve", "--listen", taken.Addr().String(), "--upstream", "127.0.0.1:9")
	if code != 1 || !strings.Contains(stderr, "address already in use") {
		t.Errorf("got exit code %d and %q", code, stderr)
	}
}

func TestTheModeOfASocket(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for setting, want := range map[string]os.FileMode{
		"":                                 0o660,
		`listen_mode = "0600"`:             0o600,
		`listen_mode = "0666"`:             0o666,
		`listen_group = "` + group() + `"`: 0o660,
	} {
		gate := startGate(t, r, rig.GateOptions{Upstream: rig.ParseAddr("127.0.0.1:9"), Settings: setting})
		if got := socketMode(t, gate.Addr); got != want {
			t.Errorf("%s: got mode %o, want %o", setting, got, want)
		}
	}
}

// group is a group that whoever runs the test may give a file to.
func group() string { return fmt.Sprint(os.Getgid()) }
