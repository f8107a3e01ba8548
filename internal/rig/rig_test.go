package rig_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

func TestPHPFPMAnswersThroughNginx(t *testing.T) {
	r := rigtest.New(t, "nginx", "php-fpm")
	for _, listen := range []rig.Addr{rig.Unix, rig.TCP} {
		php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: listen})
		plain := &rig.Site{FastCGI: php.Addr}
		kept := &rig.Site{FastCGI: php.Addr, Keepalive: 2, Unbuffered: true}
		rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{plain, kept}})
		for _, site := range []*rig.Site{plain, kept} {
			if got, want := get(t, site.URL("/hello.php")), "hello\n"; got != want {
				t.Errorf("hello.php over %s: got %q, want %q", listen.Network, got, want)
			}
		}
	}
}

func TestRelayPassesConnectionsOn(t *testing.T) {
	r := rigtest.New(t, "nginx", "nginx-stream", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	relay := &rig.Relay{To: php.Addr}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Relays: []*rig.Relay{relay}})
	site := &rig.Site{FastCGI: relay.Listen}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	if got, want := get(t, site.URL("/hello.php")), "hello\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStatusAnswersWhileAllWorkersAreBusy(t *testing.T) {
	r := rigtest.New(t, "nginx", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 1})
	site := &rig.Site{FastCGI: php.Addr}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		http.Get(site.URL("/sleep.php?s=60"))
	}()
	eventually(t, "the worker is busy", func() bool {
		st, err := php.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Active == 1 && st.Idle == 0
	})
	php.Kill()
	<-answered
}

func TestAServerComesBackOnItsAddress(t *testing.T) {
	r := rigtest.New(t, "nginx", "nginx-stream", "php-fpm")
	for _, listen := range []rig.Addr{rig.Unix, rig.TCP} {
		php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: listen})
		relay := &rig.Relay{Listen: listen, To: php.Addr}
		nginx := rigtest.Start(t, r.Nginx, rig.NginxOptions{Relays: []*rig.Relay{relay}})
		for _, s := range []*rig.Server{php.Server, nginx} {
			comesBack(t, s)
		}
	}
}

// comesBack holds a server to ending and starting again, gently and not.
func comesBack(t *testing.T, s *rig.Server) {
	t.Helper()
	first := s.Pid()
	if err := s.Restart(); err != nil {
		t.Error(err)
	}
	if s.Pid() == first {
		t.Errorf("%s: process %d is still there after a restart", s.Name, first)
	}
	s.Kill()
	if dial(s.Addr) == nil {
		t.Errorf("%s: %s accepts after a kill", s.Name, s.Addr)
	}
	if err := s.Start(); err != nil {
		t.Error(err)
	}
	if err := dial(s.Addr); err != nil {
		t.Errorf("%s: is not back: %v", s.Name, err)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	rigtest.Need(t, "nginx", "php-fpm")
	r, err := rig.New("")
	if err != nil {
		t.Fatal(err)
	}
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Listen: rig.TCP})
	site := &rig.Site{FastCGI: php.Addr}
	nginx := rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	if err := php.Freeze(); err != nil { // a frozen server must end as well
		t.Fatal(err)
	}
	var pids []int
	for _, s := range r.Servers() {
		pids = append(pids, s.Pids()...)
	}
	if got, least := len(pids), 2+5; got < least { // nginx and a worker, PHP-FPM and four
		t.Fatalf("got %d processes, want at least %d", got, least)
	}

	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := nginx.Start(); err == nil {
		t.Error("a server starts in a closed rig")
	}
	for _, pid := range pids {
		if isRunning(pid) {
			t.Errorf("process %d still runs", pid)
		}
	}
	for _, a := range []rig.Addr{php.Addr, nginx.Addr} {
		if dial(a) == nil {
			t.Errorf("%s still accepts", a)
		}
	}
	if _, err := os.Stat(r.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestAFailedStartSaysWhy(t *testing.T) {
	r := rigtest.New(t, "nginx", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	_, err := r.Nginx(rig.NginxOptions{
		Sites: []*rig.Site{{FastCGI: php.Addr, Settings: "no_such_directive on;"}},
	})
	if err == nil || !strings.Contains(err.Error(), `unknown directive "no_such_directive"`) {
		t.Errorf("got %v, want nginx's reason in it", err)
	}
}

func TestExitedTellsOfAnEnd(t *testing.T) {
	r := rigtest.New(t, "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
	if err := php.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-php.Exited()
	if got, want := php.ExitCode(), 0; got != want {
		t.Errorf("exit code: got %d, want %d", got, want)
	}
	if err := php.Signal(syscall.SIGTERM); !errors.Is(err, rig.ErrNotRunning) {
		t.Errorf("signal after the end: got %v, want %v", err, rig.ErrNotRunning)
	}
}

func TestUsageCountsAllProcesses(t *testing.T) {
	r := rigtest.New(t, "nginx", "php-fpm")
	php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 1})
	site := &rig.Site{FastCGI: php.Addr}
	rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
	before, err := php.CPU()
	if err != nil {
		t.Fatal(err)
	}
	get(t, site.URL("/hash.php?mb=4")) // in the worker, not in the main process
	after, err := php.CPU()
	if err != nil {
		t.Fatal(err)
	}
	if got, least := after-before, time.Millisecond; got < least {
		t.Errorf("CPU time of 4 MB hashed: got %s, want at least %s", got, least)
	}
	memory, err := php.Memory()
	if err != nil {
		t.Fatal(err)
	}
	if memory.Private <= 0 || memory.Private > memory.PSS || memory.PSS > memory.RSS {
		t.Errorf("got %+v, want 0 < Private <= PSS <= RSS", memory)
	}
	if files, err := php.Files(); err != nil || files < 3 {
		t.Errorf("open files: got %d and error %v, want 3 or more", files, err)
	}
}

func TestReservedAddressesAreNotGivenTwice(t *testing.T) {
	a, b := rigtest.New(t), rigtest.New(t)
	seen := map[rig.Addr]bool{}
	for range 200 {
		for _, r := range []*rig.Rig{a, b} {
			for _, network := range []string{"unix", "tcp"} {
				addr, err := r.Reserve(network, "x")
				if err != nil {
					t.Fatal(err)
				}
				if seen[addr] {
					t.Fatalf("%s was given twice", addr)
				}
				seen[addr] = true
			}
		}
	}
}

func TestALongFolderHasRoomForSockets(t *testing.T) {
	rigtest.Need(t, "php-fpm")
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := rig.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rigtest.Start(t, r.PHPFPM, rig.PHPOptions{})
}

func TestNeedNamesThePackages(t *testing.T) {
	t.Setenv("PATH", "")
	if _, err := rig.Find("no-such-program"); err == nil || errors.Is(err, rig.ErrMissing) {
		t.Errorf("a name that the rig does not know: got %v", err)
	}
	err := rig.Need("caddy")
	if !errors.Is(err, rig.ErrMissing) || !strings.Contains(err.Error(), "install --no-install-recommends caddy") {
		t.Errorf("got %v, want the package named", err)
	}
}

// client is a browser with cookies.
type client struct{ http.Client }

func newClient(t *testing.T) *client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &client{http.Client{Jar: jar}}
}

func get(t *testing.T, url string) string {
	t.Helper()
	return newClient(t).get(t, url)
}

func (c *client) get(t *testing.T, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode/100 != 2 {
		t.Fatalf("GET %s: %s\n%s", url, resp.Status, body)
	}
	return string(body)
}

// dial returns the error of a connection attempt.
func dial(a rig.Addr) error {
	nc, err := net.Dial(a.Network, a.Address)
	if err == nil {
		nc.Close()
	}
	return err
}

// isRunning leaves out processes that wait for whoever started them to look.
func isRunning(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("it never came to pass that %s", what)
}

// TestOnlyExtensionsThatKeepSessionsAreLoaded, unless all are asked for.
func TestOnlyExtensionsThatKeepSessionsAreLoaded(t *testing.T) {
	r := rigtest.New(t, "nginx", "php-fpm", "php-redis", "php-memcached")
	if err := os.WriteFile(filepath.Join(r.DocRoot, "loaded.php"), []byte(`<?php echo implode(" ", get_loaded_extensions());`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		php := rigtest.Start(t, r.PHPFPM, rig.PHPOptions{Workers: 1, AllExtensions: all})
		site := &rig.Site{FastCGI: php.Addr}
		rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
		loaded := strings.Fields(get(t, site.URL("/loaded.php")))
		for name, want := range map[string]bool{"session": true, "memcached": true, "redis": true, "Phar": all} {
			if slices.Contains(loaded, name) != want {
				t.Errorf("all: %v; %s is loaded: %v; all that are: %q", all, name, !want, loaded)
			}
		}
	}
}
