package main

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

func TestLockTable(t *testing.T) {
	key := strings.Repeat("ab", 16)
	long := strings.Repeat("long/", 30)
	holder := admin.Request{Gate: "www", Route: "api", Method: "POST", Path: "/export.php", Script: "/srv/export.php", Host: "web-1"}
	for _, c := range []struct {
		name string
		lock admin.Lock
		want []string // in its line
	}{
		{"held", admin.Lock{Key: key, Gate: "www", Held: true, Holder: holder, HeldMS: 1234}, []string{"abababab  www/api  1.2s", "POST /export.php", "/srv/export.php"}},
		{"held with waiters", admin.Lock{Key: key, Gate: "www", Held: true, Holder: holder, Waiters: []admin.Waiter{{WaitedMS: 90_000}, {WaitedMS: 5}}}, []string{"  2        1m30s"}},
		{"held elsewhere", admin.Lock{Key: key, Gate: "www", HeldMS: 500, Holder: admin.Request{Gate: "www", Host: "web-2"}, Waiters: []admin.Waiter{{}}}, []string{"500ms on web-2", "  -  "}},
		{"free", admin.Lock{Key: key, Gate: "www", Waiters: []admin.Waiter{{}}}, []string{"  free  "}},
		{"with orders to the terminal", admin.Lock{Key: key, Gate: "www", Held: true, Holder: admin.Request{Method: "GET", Path: "/\x1b[2J\r\n\u202e", Script: "/a\tb"}}, []string{"GET /\uFFFD[2J\uFFFD\uFFFD\uFFFD", "/a\uFFFDb"}},
		{"with long names", admin.Lock{Key: key, Gate: "www", Held: true, Holder: admin.Request{Method: "GET", Path: "/" + long, Script: "/" + long + "end.php"}}, []string{"GET /long/", "…  …", "/end.php"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := lockTable(&b, []admin.Lock{c.lock}); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(b.String(), "\n")
			for _, want := range c.want {
				if len(lines) != 4 || !strings.Contains(lines[1], want) {
					t.Errorf("got %q, want a line with %q", b.String(), want)
				}
			}
			if n := len([]rune(lines[1])); n > 180 {
				t.Errorf("got a line of %d letters", n)
			}
		})
	}
}

func TestAgesAreForPeople(t *testing.T) {
	for ms, want := range map[int64]string{0: "0s", 7: "7ms", 999: "999ms", 1234: "1.2s", 59_999: "59.9s", 61_500: "1m1s", 7_200_000: "2h0m0s"} {
		if got := age(ms); got != want {
			t.Errorf("%d ms: got %s, want %s", ms, got, want)
		}
	}
}

func TestNoAnswerSaysWhatToDo(t *testing.T) {
	c := &adminClient{at: netaddr.Addr{Network: "unix", Address: "/run/fpm-gate/admin.sock"}}
	for number, want := range map[syscall.Errno]string{
		syscall.EACCES:       "no permission to connect to unix:/run/fpm-gate/admin.sock: try sudo, or check the socket's mode",
		syscall.ENOENT:       "nothing listens on unix:/run/fpm-gate/admin.sock",
		syscall.ECONNREFUSED: "nothing listens on unix:/run/fpm-gate/admin.sock",
		syscall.EHOSTUNREACH: "no answer from unix:/run/fpm-gate/admin.sock: dial",
	} {
		err := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", number)}
		if got := c.noAnswer(errors.Join(err)).Error(); !strings.Contains(got, want) {
			t.Errorf("%v: got %q, want %q", number, got, want)
		}
	}
}
