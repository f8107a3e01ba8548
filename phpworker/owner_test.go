package phpworker

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// standInVariable makes the test's program stand in for a master of PHP-FPM, which has one worker, or for that worker,
// which takes a connection from its standard input.
const standInVariable = "FPM_GATE_TEST_STAND_IN"

func init() {
	switch os.Getenv(standInVariable) {
	case "master":
		worker := exec.Command(os.Args[0])
		worker.Env = []string{standInVariable + "=worker"}
		worker.Stdin = os.Stdin
		if err := worker.Run(); err != nil {
			os.Exit(1)
		}
	case "worker":
		rights := make([]byte, unix.CmsgSpace(4))
		if _, _, _, _, err := unix.Recvmsg(0, make([]byte, 1), rights, 0); err != nil {
			os.Exit(1)
		}
		_, _ = unix.Write(0, []byte("1")) // it has the connection
		_, _ = unix.Read(0, make([]byte, 1))
	default:
		return
	}
	os.Exit(0)
}

// laterConn is a connection that calls look before each look at it, with the number of the look.
type laterConn struct {
	syscall.RawConn
	looks int
	look  func(n int)
}

func (c *laterConn) Control(f func(fd uintptr)) error {
	c.looks++
	c.look(c.looks)
	return c.RawConn.Control(f)
}

// TestAConnectionWithoutAWorkerIsLookedAtAgain: the kernel shows a connection over TCP as accepted before the worker
// has its descriptor, and for a while after a worker has died. Neither is taken for a connection to a relay.
func TestAConnectionWithoutAWorkerIsLookedAtAgain(t *testing.T) {
	program := copyOfThis(t)
	for name, test := range map[string]struct {
		look  func(t *testing.T, n int, there net.Conn, worker *os.File)
		want  error
		relay bool
	}{
		"its worker is accepting it": {look: func(t *testing.T, n int, there net.Conn, worker *os.File) {
			if n == 3 {
				pass(t, there, worker)
			}
		}, want: ErrLayout}, // found, and no PHP
		"its worker has died": {look: func(_ *testing.T, n int, there net.Conn, _ *os.File) {
			if n == 3 {
				_ = there.Close()
			}
		}, want: ErrGone},
		"a relay has it": {look: func(*testing.T, int, net.Conn, *os.File) {}, want: ErrProgram, relay: true},
	} {
		t.Run(name, func(t *testing.T) {
			there, here := netpolltest.Pair(t, "tcp")
			raw, err := here.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			worker := startStandIn(t, program)
			local := &Local{Programs: []string{program}}
			_, err = local.Find(&laterConn{RawConn: raw, look: func(n int) { test.look(t, n, there, worker) }})
			if !errors.Is(err, test.want) || strings.Contains(err.Error(), "relay") != test.relay {
				t.Errorf("got %v, want %v, and a relay in it: %v", err, test.want, test.relay)
			}
		})
	}
}

// copyOfThis returns a copy of the test's program, so that the test itself is no PHP-FPM.
func copyOfThis(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "php-fpm")
	if err := rig.CopyProgram(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// startStandIn starts a master and its worker, and returns the socket to the worker.
func startStandIn(t *testing.T, program string) *os.File {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = append(os.Environ(), standInVariable+"=master")
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	t.Cleanup(func() {
		_ = ours.Close()
		_ = cmd.Wait()
	})
	return ours
}

// pass gives a connection to a worker, which alone has it then.
func pass(t *testing.T, conn net.Conn, worker *os.File) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = unix.Sendmsg(int(worker.Fd()), []byte("1"), unix.UnixRights(int(fd)), nil, 0)
	})
	if err = errors.Join(err, sent); err != nil {
		t.Fatal(err)
	}
	if _, err := worker.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
