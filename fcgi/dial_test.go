package fcgi

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// listenFull listens on a host over TCP. Its backlog has room for one connection, which is taken.
func listenFull(t *testing.T, host string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skipf("this machine has no %s", host)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	first, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return l.(*net.TCPListener)
}

// attempt is a connection of this machine that has not been answered.
type attempt struct {
	local   string // the port that it comes from
	repeats int    // by the kernel
}

// attemptsTo returns the unanswered connections to a port, as /proc/net/tcp has them.
func attemptsTo(t *testing.T, port int) (all []attempt) {
	t.Helper()
	const synSent = "02"
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			f := strings.Fields(line) // number, local, remote, state, queues, timer, repeats
			if len(f) < 7 || f[3] != synSent || !strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port)) {
				continue
			}
			repeats, err := hex.DecodeString(f[6])
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, attempt{f[1], int(repeats[len(repeats)-1])})
		}
	}
	return all
}

// beginDial begins to dial, and returns where the connection or the error comes.
func beginDial(ctx context.Context, a netaddr.Addr) (<-chan netpoll.Conn, <-chan error) {
	conns, errs := make(chan netpoll.Conn, 1), make(chan error, 1)
	go func() {
		nc, err := dial(ctx, a, 10*patience)
		if err != nil {
			errs <- err
			return
		}
		conns <- nc
	}()
	return conns, errs
}

// The kernel drops an attempt to connect if the backlog is full. It repeats it only after a second, though there may be
// room long before.
func TestDroppedAttemptOverLoopbackIsMadeAgain(t *testing.T) {
	for host, dialled := range map[string]string{"127.0.0.1": "127.0.0.1", "127.9.9.9": "127.9.9.9", "::1": "::1", "localhost": "127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			l := listenFull(t, dialled)
			port := l.Addr().(*net.TCPAddr).Port
			conns, errs := beginDial(t.Context(), netaddr.Addr{Network: "tcp", Address: net.JoinHostPort(host, strconv.Itoa(port))})
			var from []string
			await(t, "three attempts", func() bool {
				for _, a := range attemptsTo(t, port) {
					if !slices.Contains(from, a.local) {
						from = append(from, a.local)
					}
				}
				return len(from) >= 3
			})
			if _, err := l.Accept(); err != nil { // makes room
				t.Fatal(err)
			}
			var nc netpoll.Conn
			select {
			case err := <-errs:
				t.Fatal(err)
			case nc = <-conns:
			}
			defer nc.Close()
			onlyOneIsOpen(t, l, nc)
		})
	}
}

// onlyOneIsOpen checks that nc is the only connection of the backlog that has not been closed.
func onlyOneIsOpen(t *testing.T, l net.Listener, nc netpoll.Conn) {
	t.Helper()
	for {
		got, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got.RemoteAddr().String() == nc.(net.Conn).LocalAddr().String() {
			got.Close()
			return
		}
		if n, err := got.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("an attempt that was given up is open: read %d bytes, %v", n, err)
		}
		got.Close()
	}
}

// Another host may be far away: an attempt takes as long as it takes.
func TestAttemptToAnotherHostIsMadeOnce(t *testing.T) {
	l := listenFull(t, ownAddress(t))
	port := l.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conns, errs := beginDial(ctx, netaddr.Addr{Network: "tcp", Address: l.Addr().String()})
	await(t, "the kernel repeats an attempt", func() bool {
		return slices.ContainsFunc(attemptsTo(t, port), func(a attempt) bool { return a.repeats > 0 })
	})
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-errs:
		t.Error(err)
	case nc := <-conns:
		nc.Close()
	}
}

// ownAddress returns an address of this machine that is not one of loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip := a.(*net.IPNet).IP; ip.IsGlobalUnicast() && ip.To4() != nil {
			return ip.String()
		}
	}
	t.Skip("this machine has no address but those of loopback")
	return ""
}

func TestDroppedAttemptOfARequestThatWasGivenUpIsNotMadeAgain(t *testing.T) {
	l := listenFull(t, "127.0.0.1")
	ctx, giveUp := context.WithCancel(t.Context())
	conns, errs := beginDial(ctx, netaddr.Addr{Network: "tcp", Address: l.Addr().String()})
	await(t, "an attempt", func() bool { return len(attemptsTo(t, l.Addr().(*net.TCPAddr).Port)) > 0 })
	giveUp()
	select {
	case err := <-errs:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the end of the context", err)
		}
	case nc := <-conns:
		nc.Close()
		t.Error("the connection was made")
	}
}
