package main

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measureBytes compares how fast a large response passes the gate and the nginx
// relay, and what CPU time it costs in them. There is no web server in it, which
// would buffer the response on disk.
func measureBytes(st *stage) ([]row, error) {
	php, err := st.PHPFPM(rig.PHPOptions{Workers: workers})
	if err != nil {
		return nil, err
	}
	way := &rig.Relay{To: php.Addr}
	relayServer, err := st.Nginx(rig.NginxOptions{Relays: []*rig.Relay{way}})
	if err != nil {
		return nil, err
	}
	gateServer, err := st.startGate(php, recommended)
	if err != nil {
		return nil, err
	}
	relay := largeSide(st, "relay", relayServer)
	gate := largeSide(st, "gate", gateServer.Server)
	if err := interleave(st.plan("a large response", 15), relay, gate); err != nil {
		return nil, err
	}
	return []row{speedRow(gate, relay), largeCPURow(gate, relay)}, nil
}

// largeMB is how large the response is.
const largeMB = 20

// moved is what came of a large response.
type moved struct {
	perSecond float64 // MB
	cpu       time.Duration
}

func speedRow(gate, relay *side[moved]) row {
	speed := func(m moved) float64 { return m.perSecond }
	with, without := of(gate, speed), of(relay, speed)
	return row{
		what:   fmt.Sprintf("Speed of a response of %d MB", largeMB),
		gate:   number(with.median()) + " MB/s",
		other:  number(without.median()) + " MB/s: nginx stream relay",
		ratios: with.over(without),
	}
}

func largeCPURow(gate, relay *side[moved]) row {
	cpu := func(m moved) float64 { return millis(m.cpu) }
	with, without := of(gate, cpu), of(relay, cpu)
	return row{
		what:   fmt.Sprintf("CPU of a response of %d MB", largeMB),
		gate:   number(with.median()) + " ms",
		other:  number(without.median()) + " ms: nginx stream relay",
		ratios: with.over(without),
	}
}

func largeSide(st *stage, name string, s *rig.Server) *side[moved] {
	return &side[moved]{name: name, measure: func() (moved, error) {
		before, err := s.CPU()
		if err != nil {
			return moved{}, err
		}
		start := time.Now()
		if err := large(st, s.Addr); err != nil {
			return moved{}, err
		}
		took := time.Since(start)
		after, err := s.CPU()
		return moved{perSecond: largeMB / took.Seconds(), cpu: after - before}, err
	}}
}

// large gets the response, and makes sure that it is whole.
func large(st *stage, addr rig.Addr) error {
	c, err := dial(st.ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.send(st.DocRoot, "/big.php", fmt.Sprintf("mb=%d", largeMB), st.session()); err != nil {
		return err
	}
	var body bodyCounter
	if err := c.receive(&body, make([]byte, 64<<10)); err != nil {
		return err
	}
	if got, want := body.n, largeMB<<20; got != want {
		return fmt.Errorf("get big.php: got a body of %d bytes, want %d", got, want)
	}
	return nil
}

// bodyCounter counts the bytes after a response's header block, which must come
// in one piece.
type bodyCounter struct {
	n      int
	inBody bool
}

func (c *bodyCounter) Write(b []byte) (int, error) {
	body := b
	if !c.inBody {
		var ok bool
		if _, body, ok = bytes.Cut(b, []byte("\r\n\r\n")); !ok {
			return 0, fmt.Errorf("read header block %q: %w", b, io.ErrUnexpectedEOF)
		}
		c.inBody = true
	}
	c.n += len(body)
	return len(b), nil
}
