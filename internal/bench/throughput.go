package main

import (
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// measureThroughput compares how many requests a second nginx and PHP-FPM serve
// with the gate between them, to which nginx keeps its connections, and without.
func measureThroughput(st *stage) ([]row, error) {
	const workers = 10
	limited := gateSettings{upstream: fmt.Sprintf("max_connections = %d", workers)}
	plain, err := throughputSide(st, workers, nil)
	if err != nil {
		return nil, err
	}
	gate, err := throughputSide(st, workers, &limited)
	if err != nil {
		return nil, err
	}
	unlimited, err := throughputSide(st, workers, &gateSettings{})
	if err != nil {
		return nil, err
	}
	rounds := st.rounds(21)
	if err := interleave(rounds, st.progress("nginx and PHP-FPM", rounds), plain, gate, unlimited); err != nil {
		return nil, err
	}
	return []row{
		throughputRow("Requests per second", gate, plain, atLeast(1)),
		throughputRow("Requests per second, without max_connections", unlimited, plain, noTarget),
	}, nil
}

func throughputRow(what string, gate, plain *side[loaded], t target) row {
	with, without := of(gate, loaded.perSecond), of(plain, loaded.perSecond)
	return row{
		what:   what,
		gate:   fmt.Sprintf("%.0f/s", with.median()),
		other:  fmt.Sprintf("%.0f/s plain nginx and PHP-FPM", without.median()),
		ratios: with.over(without),
		target: t,
	}
}

// throughputSide starts a PHP-FPM and an nginx with a gate of these settings
// between them, or with none.
func throughputSide(st *stage, workers int, settings *gateSettings) (*side[loaded], error) {
	php, err := st.PHPFPM(rig.PHPOptions{Workers: workers})
	if err != nil {
		return nil, err
	}
	name, site := "no gate", &rig.Site{FastCGI: php.Addr}
	if settings != nil {
		gate, err := st.startGate(php, *settings)
		if err != nil {
			return nil, err
		}
		name, site = gate.Name, &rig.Site{FastCGI: gate.Addr, Keepalive: 64}
	}
	if _, err := st.Nginx(rig.NginxOptions{Sites: []*rig.Site{site}}); err != nil {
		return nil, err
	}
	l := &load{site: site, path: "/hello.php", want: "hello\n", browsers: 20, cookies: true}
	return &side[loaded]{name: name, measure: func() (loaded, error) {
		return l.run(st.ctx, scale(st, 300*time.Millisecond, 50*time.Millisecond))
	}}, nil
}
