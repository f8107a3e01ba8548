package netpoll_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
)

func TestAcceptedTCPHasItsOptions(t *testing.T) {
	own, _ := netpolltest.Pair(t, "tcp")
	raw, err := own.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]struct{ level, number int }{
		"TCP_NODELAY":  {unix.IPPROTO_TCP, unix.TCP_NODELAY},
		"SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	} {
		err := raw.Control(func(fd uintptr) {
			if on, err := unix.GetsockoptInt(int(fd), option.level, option.number); on != 1 || err != nil {
				t.Errorf("%s: got %d and %v, want 1", name, on, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
