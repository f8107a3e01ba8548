package tests

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

func TestAReloadUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	for _, keepalive := range []int{0, 4} {
		t.Run(fmt.Sprintf("keepalive %d", keepalive), func(t *testing.T) {
			t.Parallel()
			s := newStack(t, stackOptions{PHP: rig.PHPOptions{Workers: 8}, Site: rig.Site{Keepalive: keepalive}})
			var done atomic.Bool
			var served atomic.Int64
			var clients sync.WaitGroup
			session := newSession()
			for i := range 6 {
				clients.Go(func() {
					for n := 0; !done.Load(); n++ {
						path, id := "/work.php?ms=1", session // of all of them
						if i > 2 {
							path, id = "/hello.php", ""
						}
						if err := s.get(path, id).failure(); err != nil {
							t.Errorf("%s: %v", path, err)
							return
						}
						if i <= 2 {
							served.Add(1)
						}
					}
				})
			}
			configs := []string{
				s.Gate.Config,
				withUpstream(s.Gate.Config, "reuse = \"0s\""),
				withUpstream(s.Gate.Config, "max_connections = 4"),
				strings.Replace(s.Gate.Config, "upstream", "lock { max_waiters = 32 }\nupstream", 1),
			}
			for i := range 12 {
				before := served.Load()
				reload(t, s.Gate, configs[(i+1)%len(configs)])
				eventually(t, "requests are served after the reload", func() bool { return served.Load() > before+5 || t.Failed() })
			}
			done.Store(true)
			clients.Wait()
			s.get("/count.php", session).mustBe(t, fmt.Sprintf("%d\n", served.Load()))
		})
	}
}

func TestNewValuesHoldAfterAReload(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Gate: rig.GateOptions{Settings: "lock { max_wait = \"1ms\" }"}})
	session := newSession()
	held := s.hold(t, session, "hold") // its lock outlives all reloads
	mustBeSentAway(t, s.get("/hello.php", session), http.StatusServiceUnavailable, "1")

	config := strings.Replace(s.Gate.Config, `"1ms"`, "\"1ms\"\nstatus = 429\nretry_after = \"7s\"\n", 1)
	config = strings.Replace(config, "lock { ", "lock {\n", 1)
	reload(t, s.Gate, config)
	mustBeSentAway(t, s.get("/hello.php", session), http.StatusTooManyRequests, "7")

	reload(t, s.Gate, strings.Replace(config, "listen", "listen_mode = \"0600\"\nlisten", 1))
	if got, want := socketMode(t, s.Gate.Addr), os.FileMode(0o600); got != want {
		t.Errorf("mode of the socket: got %o, want %o", got, want)
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	s.get("/hello.php", session).mustBe(t, "hello\n")
}

func socketMode(t *testing.T, a rig.Addr) os.FileMode {
	t.Helper()
	info, err := os.Stat(a.Address)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestAWrongConfigLeavesTheRunningOne(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{})
	right := s.Gate.Config
	wrong := strings.Replace(right, "listen", "max_params = \"lots\"\nlock { expiry = 5 }\nlisten", 1)
	if err := s.Gate.Reload(wrong); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "keeping the running one")
	for _, want := range []string{
		s.Gate.ConfigFile() + " line 2", "max_params", `"lots"`,
		s.Gate.ConfigFile() + " line 3", "expiry",
	} {
		if !strings.Contains(s.Gate.Log(), want) {
			t.Errorf("the log does not have %q in it", want)
		}
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")

	taken, err := net.Listen("unix", s.Gate.Addr.Address+".taken")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	more := gateOf("second", rig.ParseAddr("unix:"+s.Gate.Addr.Address+".free"), fmt.Sprintf("address = %q", s.PHP.Addr), "") +
		gateOf("third", rig.ParseAddr("unix:"+s.Gate.Addr.Address+".taken"), fmt.Sprintf("address = %q", s.PHP.Addr), "")
	if err := s.Gate.Reload(strings.Replace(right, "upstream", "lock { max_wait = \"1ms\" }\nupstream", 1) + more); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, s.Gate.Server, "cannot apply config")
	if accepts(rig.ParseAddr("unix:" + s.Gate.Addr.Address + ".free")) {
		t.Error("a gate of the config that cannot be served accepts")
	}
	s.get("/hello.php", newSession()).mustBe(t, "hello\n")
	reload(t, s.Gate, right)
}

// accepts reports whether a process listens on an address.
func accepts(a rig.Addr) bool {
	nc, err := net.Dial(a.Network, a.Address)
	if err == nil {
		nc.Close()
	}
	return err == nil
}

func TestAChangedListenAddress(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{Site: rig.Site{Unbuffered: true}, Gate: rig.GateOptions{Settings: queueRoutes(1)}})
	session := newSession()
	held := s.hold(t, session, "hold")
	resp := s.firstHalf(t, "/wait.php?flush=1&mark=stream", "")

	moved, err := s.Reserve("unix", "moved")
	if err != nil {
		t.Fatal(err)
	}
	old := s.Gate.Addr
	reload(t, s.Gate, strings.Replace(s.Gate.Config, old.String(), moved.String(), 1))
	there := &stack{Rig: s.Rig, Gate: s.Gate, Site: &rig.Site{FastCGI: moved}}
	rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{there.Site}})
	eventually(t, "the old address is closed", func() bool { return !accepts(old) })
	there.get("/hello.php", "").mustBe(t, "hello\n")
	waiting := there.begin("/hello.php", session) // for the lock that the old address gave
	there.awaitQueue(t, session, 1)

	letGo(t, s.Rig, "stream")
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "last\n" {
		t.Errorf("a response on the old address: got %q and error %v", rest, err)
	}
	letGo(t, s.Rig, "hold")
	(<-held).mustBe(t, "last\n")
	(<-waiting).mustBe(t, "hello\n")
}

// twoGates starts a process with two gates, and an nginx with a site for each.
func twoGates(t *testing.T) (first, second *stack, config func(firstName, secondName string) string) {
	t.Helper()
	s := &stack{Rig: newRig(t, "nginx", "php-fpm")}
	s.PHP = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{})
	var listens [2]rig.Addr
	for i := range listens {
		var err error
		if listens[i], err = s.Reserve("unix", "gate"); err != nil {
			t.Fatal(err)
		}
	}
	block := func(name string, listen rig.Addr) string {
		if name == "" {
			return ""
		}
		return gateOf(name, listen, fmt.Sprintf("address = %q", s.PHP.Addr), "")
	}
	config = func(a, b string) string { return block(a, listens[0]) + block(b, listens[1]) }
	s.Gate = startGate(t, s.Rig, rig.GateOptions{Config: config("a", "b"), Args: []string{"--drain-timeout", "20s"}})
	sites := []*rig.Site{{FastCGI: listens[0], Unbuffered: true}, {FastCGI: listens[1], Unbuffered: true}}
	s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: sites})
	first, second = s, new(stack)
	*second = *s
	first.Site, second.Site = sites[0], sites[1]
	return first, second, config
}

func TestARemovedGateServesWhatItHas(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{false, true} {
		first, second, config := twoGates(t)
		mark := "hold"
		held := second.hold(t, newSession(), mark)
		reload(t, first.Gate, config("a", ""))
		eventually(t, "the removed gate accepts nothing more", func() bool { return !accepts(second.Site.FastCGI) })
		first.get("/hello.php", newSession()).mustBe(t, "hello\n")
		if ended { // while it still drains
			if err := first.Gate.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			awaitLog(t, first.Gate.Server, "draining: signal")
			eventually(t, "the other gate is gone", func() bool { return !accepts(first.Site.FastCGI) })
			time.Sleep(100 * time.Millisecond) // in which the process would end if it forgot this one
		}
		letGo(t, first.Rig, mark)
		(<-held).mustBe(t, "last\n")
		if ended {
			first.mustExit(t, 0)
		}
	}
}

func TestGatesThatChangeTheirNamesServeOn(t *testing.T) {
	t.Parallel()
	first, second, config := twoGates(t)
	for _, names := range [][2]string{{"c", "b"}, {"b", "c"}, {"a", "b"}} {
		reload(t, first.Gate, config(names[0], names[1]))
		for _, s := range []*stack{first, second} {
			for range 3 {
				s.get("/hello.php", newSession()).mustBe(t, "hello\n")
			}
		}
	}
}

// Something removes the socket of a gate, as a script that empties /run, or puts another one in its place. No web server
// can connect then, and a reload makes it anew. The requests that have come before, and their locks, stay.
func TestAReloadMakesASocketAnewThatIsGone(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(*testing.T, string) net.Listener{
		"removed": func(*testing.T, string) net.Listener { return nil },
		"the socket of a process that has ended": func(t *testing.T, path string) net.Listener {
			l := mustListen(t, path)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
			return nil
		},
		"the socket of another process": mustListen,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			block, admin := adminBlock(t)
			s := newStack(t, stackOptions{Gate: rig.GateOptions{Config: block, Settings: queueRoutes(1)}})
			session := newSession()
			held := s.hold(t, session, "hold")
			awaitReady := func(want int, says string) {
				t.Helper()
				eventually(t, fmt.Sprintf("/readyz is %d and says %q", want, says), func() bool {
					status, text, err := admin.ask("GET", "/readyz", "")
					return err == nil && status == want && strings.Contains(text, says)
				})
			}
			mustDo(t, os.Remove(s.Gate.Addr.Address))
			other := replace(t, s.Gate.Addr.Address)
			awaitReady(http.StatusServiceUnavailable, "removed or replaced")
			if other != nil {
				mustDo(t, s.Gate.Reload(s.Gate.Config))
				awaitLog(t, s.Gate.Server, "another process is listening there already")
				_ = other.Close()
			}
			mustDo(t, os.Remove(admin.addr.Address))
			reload(t, s.Gate, s.Gate.Config)
			awaitReady(http.StatusOK, "")
			waiting := s.begin("/hello.php", session)
			s.awaitQueue(t, session, 1)
			letGo(t, s.Rig, "hold")
			(<-held).mustBe(t, "last\n")
			(<-waiting).mustBe(t, "hello\n")
			if n := strings.Count(s.Gate.Log(), "the socket was removed or replaced, and is made anew"); n != 1 {
				t.Errorf("the log says %d times that the socket was gone, want once", n)
			}
			mustDo(t, s.Gate.Stop())
			if _, err := os.Lstat(s.Gate.Addr.Address); err == nil {
				t.Error("the gate has left its socket behind")
			}
		})
	}
}

func mustListen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
