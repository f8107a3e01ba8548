package netpoll_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
)

func TestAwaitTaken(t *testing.T) {
	const patience = 10 * time.Second
	for name, c := range map[string]struct {
		peer    func(net.Conn)
		timeout time.Duration
		want    bool
	}{
		"the peer reads all":     {func(peer net.Conn) { _, _ = io.ReadFull(peer, make([]byte, 3)) }, patience, true},
		"the peer reads a part":  {func(peer net.Conn) { _, _ = io.ReadFull(peer, make([]byte, 2)) }, time.Millisecond, false},
		"the peer reads nothing": {func(net.Conn) {}, time.Millisecond, false},
		"the peer closes":        {func(peer net.Conn) { _ = peer.Close() }, patience, true},
	} {
		t.Run(name, func(t *testing.T) {
			peer, own := netpolltest.Pair(t, "unix")
			if taken, err := netpoll.AwaitTaken(own, 0); !taken || err != nil {
				t.Errorf("nothing was sent: got %v and %v, want true", taken, err)
			}
			if _, err := own.Write([]byte("abc")); err != nil {
				t.Fatal(err)
			}
			go c.peer(peer)
			taken, err := netpoll.AwaitTaken(own, c.timeout)
			if taken != c.want || err != nil {
				t.Errorf("got %v and %v, want %v", taken, err, c.want)
			}
		})
	}
}
