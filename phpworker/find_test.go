package phpworker

import (
	"errors"
	"net"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
)

// TestAConnectionThatEndedSaysNothingOfTheOthers, on whichever side it was closed: workers are not given up for a
// minute because a browser left a stream.
func TestAConnectionThatEndedSaysNothingOfTheOthers(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		local := new(Local)
		helper, _ := served(t, local)
		for name, finder := range map[string]Finder{"by itself": local, "by a helper": helper} {
			for side, end := range map[string]func(here, there net.Conn){
				"here":      func(here, _ net.Conn) { _ = here.Close() },
				"PHP-FPM's": func(_, there net.Conn) { _ = there.Close() },
			} {
				there, here := netpolltest.Pair(t, network)
				raw, err := here.SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				end(here, there)
				if _, err := finder.Find(raw); !errors.Is(err, ErrGone) || !Temporary(err) || errors.Is(err, ErrHelper) {
					t.Errorf("%s, closed on the side %s: got %v, want %v", name, side, err, ErrGone)
				}
			}
		}
	})
}
