package main

import (
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measureThroughput compares how many requests a second nginx and PHP-FPM serve
// with the gate between them, to which nginx keeps its connections, and without;
// and what CPU time a request costs all of them together.
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
		togetherRow("CPU per request, all together", b, a),
		throughputRow("Requests per second, without max_connections", c, a, noTarget),
		togetherRow("CPU per request, all together", c, a),
	}, nil
}

// served is what came of a load of a chain.
type served struct {
	loaded
	cpu costs
}

// costs are the CPU time that a request costs each of a chain, in µs.
type costs struct{ nginx, gate, php float64 }

func (c costs) minus(d costs) costs {
	return costs{c.nginx - d.nginx, c.gate - d.gate, c.php - d.php}
}

func (c costs) over(n int) costs {
	return costs{c.nginx / float64(n), c.gate / float64(n), c.php / float64(n)}
}

func throughput(st *stage, c *chain) *side[served] {
	l := hello(c.site, 2*workers)
	return &side[served]{name: c.name, measure: func() (served, error) { return c.serve(st, l) }}
}

// serve puts a load on the chain for a moment.
func (c *chain) serve(st *stage, l *load) (served, error) {
	before, err := c.cpu()
	if err != nil {
		return served{}, err
	}
	got, err := l.run(st.ctx, full(st, 300*time.Millisecond, 50*time.Millisecond))
	if err != nil {
		return served{}, err
	}
	after, err := c.cpu()
	return served{got, after.minus(before).over(got.requests)}, err
}

// cpu returns what the chain has used so far.
func (c *chain) cpu() (used costs, err error) {
	read := func(s *rig.Server) float64 {
		if err != nil {
			return 0
		}
		var d time.Duration
		d, err = s.CPU()
		return micros(d)
	}
	used.nginx, used.php = read(c.nginx), read(c.php.Server)
	if c.gate != nil {
		used.gate = read(c.gate.Server)
	}
	return used, err
}

func throughputRow(what string, gate, plain *side[served], t target) row {
	perSecond := func(s served) float64 { return s.perSecond() }
	with, without := of(gate, perSecond), of(plain, perSecond)
	return row{
		what:   what,
		gate:   fmt.Sprintf("%.0f/s", with.median()),
		other:  fmt.Sprintf("%.0f/s: plain nginx and PHP-FPM", without.median()),
		ratios: with.over(without),
		target: t,
	}
}

func togetherRow(what string, gate, plain *side[served]) row {
	nginx := func(s served) float64 { return s.cpu.nginx }
	own := func(s served) float64 { return s.cpu.gate }
	php := func(s served) float64 { return s.cpu.php }
	all := func(s served) float64 { return s.cpu.nginx + s.cpu.gate + s.cpu.php }
	return row{
		what: what,
		gate: fmt.Sprintf("%.0f + %.0f + %.0f µs",
			of(gate, nginx).median(), of(gate, own).median(), of(gate, php).median()),
		other:  fmt.Sprintf("%.0f + %.0f µs: nginx and PHP-FPM", of(plain, nginx).median(), of(plain, php).median()),
		ratios: of(gate, all).over(of(plain, all)),
	}
}
