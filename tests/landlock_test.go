package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/landlock"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// confined is the line of a log that Landlock restricts the process.
const confined = "this process can open only what its config names"

// needLandlock skips the test where the kernel has no Landlock.
func needLandlock(t *testing.T) {
	t.Helper()
	if _, err := landlock.Version(); err != nil {
		t.Skipf("no process can be restricted here: %v", err)
	}
}

// secretFile makes a file in a new folder, and returns its path.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// confinedStack is a stack whose gate looks at no workers, as that rules out Landlock where the gate has the rights.
func confinedStack(t *testing.T, binary string, o rig.GateOptions) *stack {
	t.Helper()
	o.Binary = binary
	o.Settings += "\n  session { watch = \"none\" }\n"
	return newStack(t, stackOptions{Gate: o}, "memcached")
}

func TestLandlock(t *testing.T) {
	t.Parallel()
	needLandlock(t)
	binary := filepath.Join(t.TempDir(), "fpm-gate") // the one with the race detector cannot be confined
	if err := rig.CopyProgram(plainBinary, binary); err != nil {
		t.Fatal(err)
	}
	t.Run("a forbidden open", func(t *testing.T) { t.Parallel(); testForbiddenOpen(t, binary) })
	t.Run("what a reload may do", func(t *testing.T) { t.Parallel(); testReloadWithinReach(t, binary) })
	t.Run("what a reload may not do", func(t *testing.T) { t.Parallel(); testReloadOutOfReach(t, binary) })
	t.Run("PHP's sessions are watched", func(t *testing.T) { t.Parallel(); testConfinedWatch(t, binary) })
	t.Run("a restart hands over", func(t *testing.T) { t.Parallel(); testConfinedRestart(t, binary) })
	t.Run("a gate that looks at workers", func(t *testing.T) { t.Parallel(); testUnconfinedWorkers(t, binary) })
}

// testForbiddenOpen has the process open a file by a reload: one that its config did not name at its start.
func testForbiddenOpen(t *testing.T, binary string) {
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			t.Parallel()
			key := fmt.Sprintf("landlock = %v\n", on)
			s := confinedStack(t, binary, rig.GateOptions{Config: key})
			ask(s.Site, request{path: "/hello.php"}).mustBe(t, "hello\n")
			if on {
				awaitLog(t, s.Gate.Server, confined)
			} else if strings.Contains(s.Gate.Log(), confined) {
				t.Fatal("the process is confined, want it not to be")
			}
			file := secretFile(t, "from elsewhere")
			next := s.Gate.Config + fmt.Sprintf("memcached {\n  servers = [\"127.0.0.1:1\"]\n  secret = file(%q)\n}\n", file)
			if !on {
				reload(t, s.Gate, next)
				return
			}
			if err := s.Gate.Reload(next); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the log says why the file cannot be read", func() bool {
				log := s.Gate.Log()
				return strings.Contains(log, file+": permission denied") && strings.Contains(log, "restart it for a file elsewhere")
			})
			ask(s.Site, request{path: "/hello.php"}).mustBe(t, "hello\n")
		})
	}
}

// testReloadWithinReach changes all that can be changed within the folders that the config names.
func testReloadWithinReach(t *testing.T, binary string) {
	r := newRig(t, "nginx", "php-fpm", "memcached")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	store := rigtest.Start(t, r.Memcached, rig.StoreOptions{})
	_, port, _ := strings.Cut(store.Addr.Address, ":")
	secret := secretFile(t, "one")
	block, admin := adminBlock(t)
	name := "localhost:" + port // takes the files of hosts and name servers
	gate := startGate(t, r, rig.GateOptions{Binary: binary, Upstream: php.Addr,
		Settings: "session { watch = \"none\" }\n lock { store = \"memcached\" }\n listen_group = \"root\"",
		Config:   block + fmt.Sprintf("memcached {\n  servers = [%q]\n  secret = file(%q)\n}\n", name, secret)})
	site := &rig.Site{FastCGI: gate.Addr}
	startNginx(t, r, site)
	awaitLog(t, gate.Server, confined)
	for _, text := range []string{"two", "three"} { // as editors do, and at last with another socket
		if err := os.WriteFile(secret+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(secret+".new", secret); err != nil {
			t.Fatal(err)
		}
		reload(t, gate, gate.Config)
	}
	moved := gate.Addr.Address + ".moved"
	reload(t, gate, strings.Replace(gate.Config, gate.Addr.Address, moved, 1))
	site = &rig.Site{FastCGI: rig.Addr{Network: "unix", Address: moved}}
	startNginx(t, r, site)
	ask(site, request{path: "/turn.php?mark=m&name=a&ms=0", session: newSession()}).mustBe(t, "1\n")
	mark, err := os.ReadFile(filepath.Join(r.DocRoot, "marks", "m"))
	if err != nil || !strings.Contains(string(mark), "begin:a:held") {
		t.Errorf("got %q, %v from the socket that has moved, want a lock in memcached", mark, err)
	}
	if !strings.Contains(admin.get(t, "/metrics"), "process_open_fds") {
		t.Error("the metrics of the process are missing")
	}
}

// testReloadOutOfReach asks for a socket and a file of TLS in other folders.
func testReloadOutOfReach(t *testing.T, binary string) {
	s := confinedStack(t, binary, rig.GateOptions{})
	for what, config := range map[string]string{
		t.TempDir(): strings.Replace(s.Gate.Config, "unix:"+filepath.Dir(s.Gate.Addr.Address), "unix:%s", 1),
		filepath.Dir(secretFile(t, "no certificate")): s.Gate.Config +
			"memcached {\n  servers = [\"127.0.0.1:1\"]\n  secret = \"x\"\n  tls { ca = \"%s/secret\" }\n}\n",
	} {
		if err := s.Gate.Reload(fmt.Sprintf(config, what)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log names the folder and says what to do", func() bool {
			return strings.Contains(s.Gate.Log(), what+": not within reach")
		})
		ask(s.Site, request{path: "/hello.php"}).mustBe(t, "hello\n")
	}
	if !strings.Contains(s.Gate.Log(), "restart fpm-gate") {
		t.Error("the log does not say what to do")
	}
}

// testConfinedWatch has PHP close its session while the script goes on, which the gate sees in the folder.
func testConfinedWatch(t *testing.T, binary string) {
	s := newWatchedStack(t, "files", "", stackOptions{Gate: rig.GateOptions{Binary: binary}, PHP: rig.PHPOptions{Workers: 4}})
	awaitLog(t, s.Gate.Server, confined)
	session := newSession()
	s.acquaint(t, session)
	export := s.export("close", session)
	awaitMark(t, s.Rig, "close.closed")
	if answer := s.get("/count.php", session); answer.failure() != nil || marked(s.Rig, "close.ended") {
		t.Errorf("the next request waited for the script's end, or failed: %v", answer.failure())
	}
	letGo(t, s.Rig, "close")
	if answer := <-export; answer.failure() != nil {
		t.Error(answer.failure())
	}
}

// testConfinedRestart restarts a unit. The process that serves may not run systemctl: the main process does it.
func testConfinedRestart(t *testing.T, binary string) {
	r, site, gate := unitStack(t, "restart", func(a *activated) {
		a.binary = binary
		config, err := os.ReadFile(a.config)
		if err != nil {
			t.Fatal(err)
		}
		unwatched := strings.Replace(string(config), "upstream", "session { watch = \"none\" }\n  upstream", 1)
		if err := os.WriteFile(a.config, []byte(unwatched), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	session := newSession()
	held := begin(site, request{path: "/wait.php?mark=a", session: session})
	awaitMark(t, r, "a.started")
	gate.restart()
	ask(site, request{path: "/hello.php"}).mustBe(t, "hello\n") // the script is still running
	next := begin(site, request{path: "/wait.php?mark=b", session: session})
	if log := gate.text(); !strings.Contains(log, confined) || !strings.Contains(log, "locks are taken over") {
		t.Error("the process was not confined, or its locks were not taken over")
	}
	letGo(t, r, "a")
	(<-held).mustBe(t, "last\n")
	letGo(t, r, "b")
	(<-next).mustBe(t, "last\n")
	gate.awaitEnds(1)
}

// testUnconfinedWorkers: a process that Landlock restricts cannot look at workers, so one that does is left alone.
func testUnconfinedWorkers(t *testing.T, binary string) {
	needPtrace(t)
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Binary: binary}})
	if log := s.Gate.Log(); strings.Contains(log, confined) || !strings.Contains(log, "no Landlock") {
		t.Error("the process is confined, or the log does not say why it is not")
	}
}
