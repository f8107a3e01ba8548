package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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

// operator asks a gate's admin as another program would.
type operator struct {
	addr rig.Addr
	http *http.Client
}

// adminBlock is the block of an admin on a unix socket, and its operator.
func adminBlock(t testing.TB) (block string, o operator) {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin-") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addr := rig.Addr{Network: "unix", Address: filepath.Join(dir, "admin.sock")}
	return fmt.Sprintf("admin { listen = %q }\n", addr), asker(addr)
}

func asker(addr rig.Addr) operator {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, addr.Network, addr.Address)
	}
	return operator{addr, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: requestTimeout}}
}

// ask requests a path. The error is nil if there was an answer.
func (o operator) ask(method, path, body string) (status int, text string, err error) {
	r, err := http.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := o.http.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(all), err
}

// get asks for a page that must be there.
func (o operator) get(t testing.TB, path string) string {
	t.Helper()
	status, text, err := o.ask("GET", path, "")
	if err != nil || status != http.StatusOK {
		t.Errorf("GET %s: got status %d, error %v and %.200s, want 200", path, status, err, text)
	}
	return text
}

// locksPage is what the tests look at of GET /locks.
type locksPage struct {
	Host  string
	Locks []lockOfPage
}

type lockOfPage struct {
	Key, Realm, Gate string
	Held             bool
	Holder           struct{ Gate, Route, Method, Path, Script, Host string }
	Since, Expires   string
	Waiters          []struct{ Gate, Route, Method, Path, Script string }
}

func (o operator) locks(t testing.TB) (page locksPage) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.get(t, "/locks")), &page); err != nil {
		t.Error(err)
	}
	return page
}

// awaitWaiters waits until n requests wait for the first lock that there is.
func (o operator) awaitWaiters(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d requests wait", n), func() bool {
		page := o.locks(t)
		return len(page.Locks) > 0 && len(page.Locks[0].Waiters) == n
	})
}

// run runs a command of an operator to its end.
func (o operator) run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return run(t, append(args, "--admin", o.addr.String())...)
}

func TestAnOperatorSeesAndBreaksALock(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block, Settings: `route "reports" { path = ["/wait.php"] }`}})
	if code, stdout, stderr := admin.run(t, "locks"); code != 0 || stdout != "0 locks are held, 0 requests wait\n" {
		t.Errorf("without locks: got exit code %d, %q and %q", code, stdout, stderr)
	}
	session := newSession()
	held := s.hold(t, session, "hold")
	waits := s.begin("/info.php?session=0&secret="+session, session)
	admin.awaitWaiters(t, 1)

	l := admin.locks(t).Locks[0]
	if !l.Held || l.Realm != "www" || l.Gate != "www" || l.Holder.Route != "reports" || l.Holder.Method != "GET" ||
		l.Holder.Path != "/wait.php" || l.Holder.Script != s.DocRoot+"/wait.php" || l.Waiters[0].Path != "/info.php" {
		t.Errorf("got lock %+v", l)
	}
	// Expiry counts from the moment when PHP has the request, which is a little later than the lock.
	if got := instant(t, l.Expires).Sub(instant(t, l.Since)); got < time.Minute || got > time.Minute+requestTimeout {
		t.Errorf("it expires after %s, want a minute and the time until the request was sent", got)
	}
	_, table, _ := admin.run(t, "locks")
	for _, want := range []string{"KEY ", "WAITERS", l.Key[:8] + "  www/reports ", "GET /wait.php", "wait.php\n", "1 lock is held, 1 request waits\n"} {
		if !strings.Contains(table, want) {
			t.Errorf("got table %s, want %q in it", table, want)
		}
	}
	var page locksPage
	if _, stdout, _ := admin.run(t, "locks", "--json"); json.Unmarshal([]byte(stdout), &page) != nil || page.Locks[0].Key != l.Key {
		t.Errorf("got %s, want the JSON of the lock", stdout)
	}

	if code, stdout, stderr := admin.run(t, "break", l.Key[:8]); code != 0 || !strings.Contains(stdout, "broken: "+l.Key) {
		t.Errorf("break: got exit code %d, %q and %q", code, stdout, stderr)
	}
	if gate := infoOf(t, <-waits).Gate; gate["FPM_GATE_LOCK"] != "held" || gate["FPM_GATE_KEY"] != l.Key {
		t.Errorf("got %v of the next request, want it to hold the lock", gate)
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	awaitLog(t, s.Gate.Server, "lock broken by an operator: key="+l.Key[:8]+" method=GET path=/wait.php")
	if metrics := admin.get(t, "/metrics"); !strings.Contains(metrics, `fpm_gate_locks_broken_total{gate="www"} 1`) {
		t.Error("the metrics do not count it")
	}
	if code, _, stderr := admin.run(t, "break", l.Key[:8]); code != 1 || !strings.Contains(stderr, "is held or waited for on this host") {
		t.Errorf("break again: got exit code %d and %q", code, stderr)
	}
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Error(err)
	}
	return at
}

func TestTheLastHourNamesTheScriptToBlame(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block}})
	session := newSession()
	held := s.hold(t, session, "hold")
	waits := s.begin("/hello.php", session)
	admin.awaitWaiters(t, 1)
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	(<-waits).mustBe(t, "hello\n")
	var page struct {
		Scripts []struct {
			Script  string
			Holds   int
			Blocked int
		}
		Waits []struct{ Count int }
	}
	eventually(t, "both holds are in the history", func() bool {
		if err := json.Unmarshal([]byte(admin.get(t, "/history")), &page); err != nil {
			t.Fatal(err)
		}
		return len(page.Scripts) == 2
	})
	if first := page.Scripts[0]; first.Script != s.DocRoot+"/wait.php" || first.Holds != 1 || first.Blocked != 1 {
		t.Errorf("got %+v, want wait.php to have blocked one", page.Scripts)
	}
	waited := 0
	for _, w := range page.Waits {
		waited += w.Count
	}
	if waited != 1 {
		t.Errorf("got %d waits, want 1", waited)
	}
}

func TestReadinessFollowsPHPFPM(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block}})
	readiness := func() int {
		status, _, err := admin.ask("GET", "/readyz", "")
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	eventually(t, "it is ready", func() bool { return readiness() == http.StatusOK })
	if err := s.PHP.Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is not ready without PHP-FPM", func() bool { return readiness() == http.StatusServiceUnavailable })
	if got := admin.get(t, "/healthz"); got != "ok\n" {
		t.Errorf("health: got %q, want ok all the same", got)
	}
	if err := s.PHP.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready again", func() bool { return readiness() == http.StatusOK })
}

// TestAnAdminThatAllCanConnectToIsWarnedOf has another user connect: the warnings must be true.
func TestAnAdminThatAllCanConnectToIsWarnedOf(t *testing.T) {
	t.Parallel()
	rigtest.NeedRoot(t, "only root can be another user")
	r := newRig(t)
	for _, mode := range []string{"", "0600", "0660", "0661", "0664", "0775", "0602", "0666", "0777"} {
		block, admin := adminBlock(t)
		if mode != "" {
			block = fmt.Sprintf("admin {\n  listen = %q\n  listen_mode = %q\n}\n", admin.addr, mode)
		}
		path := admin.addr.Address
		if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		gate := startGate(t, r, rig.GateOptions{Upstream: rig.ParseAddr("127.0.0.1:9"), Config: block, Settings: `listen_mode = "0666"`})
		connect := exec.CommandContext(t.Context(), "perl", "-MIO::Socket::UNIX", "-e", "exit(IO::Socket::UNIX->new(Peer => shift) ? 0 : 3)", path)
		connect.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		err := connect.Run()
		if err != nil && connect.ProcessState.ExitCode() != 3 {
			t.Fatal(err)
		}
		const warning = "lets every user of this machine connect"
		want := map[bool]int{true: 1}[err == nil]
		code, _, stderr := run(t, "check", "--file-only", "--config", gate.ConfigFile())
		if got := strings.Count(stderr, warning); code != 0 || got != want {
			t.Errorf("mode %q: another user gets %v; check exits with %d and %d warnings in %s, want %d", mode, err, code, got, stderr, want)
		}
		if got := strings.Count(gate.Log(), warning); got != want {
			t.Errorf("mode %q: another user gets %v; the log has %d warnings, want %d:\n%s", mode, err, got, want, gate.Log())
		}
	}
}

func TestAReloadAddsMovesAndRemovesTheAdmin(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	without := s.Gate.Config
	session := newSession()
	held := s.hold(t, session, "hold") // before there is an admin
	block, first := adminBlock(t)
	reload(t, s.Gate, without+block)
	if got := first.locks(t).Locks; len(got) != 1 || got[0].Holder.Path != "/wait.php" {
		t.Errorf("got %+v, want the lock that is held", got)
	}
	if info, err := os.Stat(first.addr.Address); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("got mode %v and error %v, want 0660", info.Mode(), err)
	}
	reload(t, s.Gate, without+fmt.Sprintf("admin {\n  listen = %q\n  listen_mode = \"0600\"\n}\n", first.addr))
	if info, err := os.Stat(first.addr.Address); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v and error %v, want 0600", info.Mode(), err)
	}
	addr, err := s.Reserve("tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	second := asker(addr)
	reload(t, s.Gate, without+fmt.Sprintf("admin { listen = %q }\n", addr))
	if got := second.locks(t).Locks; len(got) != 1 {
		t.Errorf("got %+v after the move, want the lock that is held", got)
	}
	if _, _, err := first.ask("GET", "/healthz", ""); err == nil || marked(s.Rig, "hold.ended") {
		t.Error("the first admin still answers")
	}
	reload(t, s.Gate, without)
	if _, _, err := second.ask("GET", "/healthz", ""); err == nil {
		t.Error("the second admin still answers")
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
}

func TestAnAdminThatCannotListenLeavesAllAsItIs(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block}})
	taken := fmt.Sprintf("admin { listen = %q }\n", s.Site.Listen) // nginx's
	if err := s.Gate.Reload(strings.Replace(s.Gate.Config, block, taken, 1)); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "cannot apply config, keeping the running one")
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	eventually(t, "readiness warns of it", func() bool {
		return strings.Contains(admin.get(t, "/readyz"), "last reload failed")
	})
	if metrics := admin.get(t, "/metrics"); !strings.Contains(metrics, "fpm_gate_config_last_reload_successful 0\n") {
		t.Error("the metrics do not tell it")
	}
}

func TestTheAdminLivesUntilTheDrainIsOver(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block, Args: []string{"--drain-timeout", "50s"}}})
	held := s.hold(t, newSession(), "hold")
	stream, err := admin.http.Get("http://127.0.0.1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if err := s.Gate.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "draining")
	eventually(t, "readiness tells it", func() bool {
		status, text, err := admin.ask("GET", "/readyz", "")
		return err == nil && status == http.StatusServiceUnavailable && strings.Contains(text, "shutting down")
	})
	if got := admin.locks(t).Locks; len(got) != 1 || !got[0].Held {
		t.Errorf("got %+v, want the lock that is held", got)
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	if _, err := io.Copy(io.Discard, stream.Body); err != nil { // it ends, and the process with it
		t.Logf("the stream ended: %v", err)
	}
	s.mustExit(t, 0)
}

// TestACrowdOfOperatorsTouchesNoRequest opens more connections to the admin than it takes, most of which ask for events
// and read nothing.
func TestACrowdOfOperatorsTouchesNoRequest(t *testing.T) {
	t.Parallel()
	const crowd = 400
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block}})
	before := baseline(t, s)
	var conns []net.Conn
	for range crowd {
		nc, err := net.Dial(admin.addr.Network, admin.addr.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_, _ = nc.Write([]byte("GET /events HTTP/1.1\r\nHost: gate\r\n\r\n"))
		conns = append(conns, nc)
	}
	session := newSession()
	held := s.hold(t, session, "hold")
	waits := s.begin("/hello.php", session)
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	(<-waits).mustBe(t, "hello\n")
	if got := files(t, s); got >= before+crowd {
		t.Errorf("got %d open files after %d, want fewer than one for each of the crowd", got, before)
	}
	for _, nc := range conns {
		nc.Close()
	}
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
	eventually(t, "an operator is answered", func() bool {
		status, _, err := admin.ask("GET", "/locks", "")
		return err == nil && status == http.StatusOK
	})
}

func TestTheLogLevelIsChangedUntilTheNextReload(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block}})
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	if strings.Contains(s.Gate.Log(), "request done") {
		t.Error("a normal request is logged at info")
	}
	if status, text, err := admin.ask("PUT", "/log-level", "debug"); status != http.StatusOK || text != "debug\n" {
		t.Errorf("got status %d, %q and error %v", status, text, err)
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	awaitLog(t, s.Gate.Server, "request done")
	reload(t, s.Gate, s.Gate.Config)
	if got := admin.get(t, "/log-level"); got != "info\n" {
		t.Errorf("got %q after a reload, want info", got)
	}
}

func TestWatchRefreshesTheLocks(t *testing.T) {
	t.Parallel()
	block, admin := adminBlock(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block}})
	watch := exec.Command(gateBinary, "locks", "--watch", "--interval", "100ms", "--admin", admin.addr.String())
	watch.Env = append(os.Environ(), raceOptions)
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Process.Kill()
	lines := bufio.NewScanner(out)
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Errorf("the watch ended and has not shown %q", text)
	}
	until("0 locks are held")
	held := s.hold(t, newSession(), "hold")
	until("GET /wait.php")
	until("1 lock is held")
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	until("0 locks are held")
	if err := watch.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to its end
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("ended by Ctrl-C: got %v, want exit code 0", err)
	}
}

func TestCommandsSayWhatToDoWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	free, err := r.Reserve("tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	other := httpServer(t)
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"locks --admin unix:/no/such.sock", 1, "nothing listens on unix:/no/such.sock: start fpm-gate"},
		{"locks --admin unix:" + stale, 1, "nothing listens on unix:"},
		{"locks --admin " + free.String(), 1, "nothing listens on " + free.String()},
		{"locks --admin " + other, 1, "is it fpm-gate?"},
		{"break abcd --admin unix:/no/such.sock", 1, "nothing listens"},
		{"locks --admin /no/such.sock", 2, `must be "unix:/path" or "host:port"`},
		{"locks --admin unix:relative", 2, `must be "unix:/path" or "host:port"`},
		{"locks --config " + configFile(t, rightConfig), 2, "has no admin block"},
		{"locks --config " + configFile(t, rightConfig+`admin { listen = "unix:/no/such.sock" }`), 1, "nothing listens on unix:/no/such.sock"},
		{"locks --config /no/such.hcl", 2, "/no/such.hcl"},
		{"locks --config x --admin unix:/y", 2, "config"},
		{"locks now", 2, "unexpected argument"},
		{"locks --interval 1ms --admin unix:/no/such.sock", 2, "at least 100ms"},
		{"break", 2, "KEY is required"},
		{"break a b", 2, "KEY is required"},
	} {
		if code, _, stderr := run(t, strings.Fields(tt.args)...); code != tt.code || !strings.Contains(stderr, tt.says) {
			t.Errorf("fpm-gate %s: got exit code %d and %q, want %d and %q", tt.args, code, stderr, tt.code, tt.says)
		}
	}
	if _, err := os.Stat("/etc/fpm-gate/fpm-gate.hcl"); err != nil {
		if code, _, stderr := run(t, "locks"); code != 2 || !strings.Contains(stderr, "--admin or --config is required") {
			t.Errorf("fpm-gate locks: got exit code %d and %q", code, stderr)
		}
	}
}

// httpServer starts an HTTP server that is not fpm-gate and returns its address.
func httpServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func TestProfilesHaveASwitch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	block, o := adminBlock(t)
	off := strings.Replace(block, " }", "\npprof = false\n}", 1)
	off = strings.Replace(off, "{ ", "{\n", 1)
	g := startGate(t, r, rig.GateOptions{Upstream: rig.ParseAddr("127.0.0.1:9"), Config: block})
	for _, tt := range []struct {
		block  string
		status int
	}{{block, 200}, {off, 404}, {block, 200}} {
		reload(t, g, strings.Replace(strings.Replace(g.Config, off, "", 1), block, "", 1)+tt.block)
		for _, path := range []string{"", "cmdline", "heap?debug=1", "goroutine?debug=1", "symbol", "profile?seconds=1", "trace?seconds=0.1"} {
			if status, text, err := o.ask("GET", "/debug/pprof/"+path, ""); err != nil || status != tt.status {
				t.Errorf("%s: got %d, %.100q and %v, want %d", path, status, text, err, tt.status)
			}
		}
	}
}
