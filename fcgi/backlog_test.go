package fcgi

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// listenShort listens with the shortest backlog that there is, and accepts nothing.
func listenShort(t *testing.T, network string) netaddr.Addr {
	t.Helper()
	domain, sa := unix.AF_UNIX, unix.Sockaddr(&unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")})
	if network == "tcp" {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	if sa, err = unix.Getsockname(fd); err != nil {
		t.Fatal(err)
	}
	if tcp, ok := sa.(*unix.SockaddrInet4); ok {
		return netaddr.Addr{Network: "tcp", Address: (&net.TCPAddr{IP: tcp.Addr[:], Port: tcp.Port}).String()}
	}
	return netaddr.Addr{Network: "unix", Address: sa.(*unix.SockaddrUnix).Name}
}

func TestErrorNamesTheBacklogThatIsFull(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		a := listenShort(t, network)
		for range 10 {
			nc, err := dial(t.Context(), a, 50*time.Millisecond)
			if err != nil {
				if !strings.Contains(err.Error(), "backlog (listen.backlog) is full") {
					t.Errorf("got %v, want an error that names the backlog", err)
				}
				return
			}
			defer nc.Close()
		}
		t.Error("the backlog is never full")
	})
}
