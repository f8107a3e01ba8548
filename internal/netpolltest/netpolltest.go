// Package netpolltest has what tests of connections need: both kinds of sockets, the two ends of a connection, and
// waits that end.
//
// What it opens is closed when the test ends.
package netpolltest

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// Patience is how long a test waits for what must come. Nothing that passes takes so long.
const Patience = 10 * time.Second

// Receive takes a value that must come.
func Receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// WaitFor calls a function that must return.
func WaitFor(t testing.TB, name string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	return Receive(t, name, done)
}

// Await waits until something is so.
func Await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// Both runs a test on unix sockets and on TCP.
func Both(t *testing.T, test func(t *testing.T, network string)) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			test(t, network)
		})
	}
}

// Listen listens on a unix socket, or on a port of this machine. The caller closes the listener.
func Listen(t testing.TB, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Pair returns the two ends of a connection: the server's is one of netpoll, the client's one of net.
func Pair(t testing.TB, network string) (server, client netpoll.Conn) {
	t.Helper()
	l, err := netpoll.NewListener(Listen(t, network))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- nc
	}()
	nc, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	one, ok := <-accepted
	if !ok {
		t.Fatal("nothing was accepted")
	}
	t.Cleanup(func() { one.Close() })
	return one.(netpoll.Conn), nc.(netpoll.Conn)
}
