package main

import (
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measureThroughput compares how many requests a second nginx and PHP-FPM serve
// with the gate between them, to which nginx keeps its connections, and without.
func measureThroughput(st *stage) ([]row, error) {
	php := rig.PHPOptions{Workers: workers}
	plain, err := st.startChain("no gate", php, nil)
	if err != nil {
		return nil, err
	}
	gate, err := st.startChain("gate", php, &recommended)
	if err != nil {
		return nil, err
	}
	unlimited, err := st.startChain("gate without max_connections", php, &gateSettings{})
	if err != nil {
		return nil, err
	}
	a, b, c := throughput(st, plain), throughput(st, gate), throughput(st, unlimited)
	if err := interleave(st.plan("requests per second", 21), a, b, c); err != nil {
		return nil, err
	}
	return []row{
		throughputRow("Requests per second", b, a, atLeast(1)),
		throughputRow("Requests per second, without max_connections", c, a, noTarget),
	}, nil
}

func throughput(st *stage, c *chain) *side[loaded] {
	l := hello(c.site, 2*workers)
	return &side[loaded]{name: c.name, measure: func() (loaded, error) {
		return l.run(st.ctx, full(st, 300*time.Millisecond, 50*time.Millisecond))
	}}
}

func throughputRow(what string, gate, plain *side[loaded], t target) row {
	with, without := of(gate, loaded.perSecond), of(plain, loaded.perSecond)
	return row{
		what:   what,
		gate:   fmt.Sprintf("%.0f/s", with.median()),
		other:  fmt.Sprintf("%.0f/s: plain nginx and PHP-FPM", without.median()),
		ratios: with.over(without),
		target: t,
	}
}
