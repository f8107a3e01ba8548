package main

import (
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measureCPU compares the CPU time that a request costs in the gate with what it
// costs in an nginx that only copies bytes: without keep-alive on either side,
// with it on both, and at a light load.
func measureCPU(st *stage) ([]row, error) {
	cases := []cpuCase{
		{"no keep-alive", 0, `reuse = "0s"`, 8, atMost(1.25)},
		{"keep-alive on both sides", 16, "", 8, atMost(2)},
		{"no keep-alive, one request at a time", 0, `reuse = "0s"`, 1, noTarget},
		{"keep-alive on both sides, one request at a time", 16, "", 1, noTarget},
	}
	var rows []row
	for _, c := range cases {
		r, err := c.measure(st)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// cpuCase is one way of connecting.
type cpuCase struct {
	name      string
	keepalive int    // connections that nginx keeps
	upstream  string // settings of the gate
	browsers  int
	target    target
}

func (c *cpuCase) measure(st *stage) (row, error) {
	relay, gate, err := c.start(st)
	if err != nil {
		return row{}, err
	}
	if err := interleave(st.plan(c.name, 21), relay, gate); err != nil {
		return row{}, err
	}
	with, without := of(gate, micros), of(relay, micros)
	return row{
		what:   "CPU per request, " + c.name,
		gate:   fmt.Sprintf("%.1f µs", with.median()),
		other:  fmt.Sprintf("%.1f µs: nginx stream relay", without.median()),
		ratios: with.over(without),
		target: c.target,
	}, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// start starts both chains: a web server, the relay or the gate, and a PHP-FPM
// of its own, because kept connections pin workers.
func (c *cpuCase) start(st *stage) (relay, gate *side[time.Duration], err error) {
	var php [2]*rig.PHPFPM
	for i := range php {
		if php[i], err = st.PHPFPM(rig.PHPOptions{Workers: 16}); err != nil {
			return nil, nil, err
		}
	}
	way := &rig.Relay{To: php[0].Addr}
	relayServer, err := st.Nginx(rig.NginxOptions{Relays: []*rig.Relay{way}})
	if err != nil {
		return nil, nil, err
	}
	gateServer, err := st.startGate(php[1], gateSettings{upstream: c.upstream})
	if err != nil {
		return nil, nil, err
	}
	sites := []*rig.Site{
		{FastCGI: way.Listen, Keepalive: c.keepalive},
		{FastCGI: gateServer.Addr, Keepalive: c.keepalive},
	}
	if _, err := st.Nginx(rig.NginxOptions{Sites: sites}); err != nil {
		return nil, nil, err
	}
	return c.side(st, "relay", relayServer, sites[0]), c.side(st, "gate", gateServer.Server, sites[1]), nil
}

// side measures the CPU time of a server per request to the site before it.
func (c *cpuCase) side(st *stage, name string, s *rig.Server, site *rig.Site) *side[time.Duration] {
	l := hello(site, c.browsers)
	return &side[time.Duration]{name: name, measure: func() (time.Duration, error) {
		before, err := s.CPU()
		if err != nil {
			return 0, err
		}
		got, err := l.run(st.ctx, full(st, 300*time.Millisecond, 50*time.Millisecond))
		if err != nil {
			return 0, err
		}
		after, err := s.CPU()
		return (after - before) / time.Duration(got.requests), err
	}}
}
