package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// watchRate is the rate of sessions per second for which the cost of watching is given.
const watchRate = 5000

// measureWatch compares what a request of a session costs a gate that sees PHP open and close the session, by its file
// or in PHP-FPM's worker, with what it costs one that does not look; and what others cost it that use the same folder.
func measureWatch(st *stage) ([]row, error) {
	notWatching, inWorkers := recommended, recommended
	notWatching.block, inWorkers.block = `session { watch = "none" }`, `session { watch = "workers" }`
	blind, err := st.startChain("not watched", rig.PHPOptions{Workers: workers}, &notWatching)
	if err != nil {
		return nil, err
	}
	looking, err := st.startChain("watched in the workers", rig.PHPOptions{Workers: workers}, &inWorkers)
	if err != nil {
		return nil, err
	}
	watching, err := st.startWatching("watched")
	if err != nil {
		return nil, err
	}
	idle, err := st.startWatching("others")
	if err != nil {
		return nil, err
	}
	a, b, w := watchLoad(st, watching), watchLoad(st, blind), watchLoad(st, looking)
	if err := interleave(st.plan("requests of sessions", 21), a, b, w); err != nil {
		return nil, err
	}
	others := &side[time.Duration]{name: "others", measure: func() (time.Duration, error) { return othersCost(st, idle) }}
	if err := interleave(st.plan("sessions of others", 5), others); err != nil {
		return nil, err
	}
	cpu := func(s served) float64 { return s.cpu.gate }
	with, without, worker := of(a, cpu), of(b, cpu), of(w, cpu)
	other := of(others, micros).median()
	return []row{
		{
			what:   "CPU of the gate per request of a session, workers watched",
			gate:   fmt.Sprintf("%.1f µs", worker.median()),
			other:  fmt.Sprintf("%.1f µs: not watched", without.median()),
			ratios: worker.over(without),
		},
		{
			what:   "the same, files watched",
			gate:   fmt.Sprintf("%.1f µs", with.median()),
			other:  fmt.Sprintf("%.1f µs: not watched", without.median()),
			ratios: with.over(without),
		},
		throughputRow("Requests of sessions per second", a, b, noTarget),
		watchRow("Watching, of one CPU at 5,000 requests of sessions/s", with.median()-without.median()),
		watchRow("Of one CPU at 5,000 sessions/s of others in the same folder", other),
	}, nil
}

// watchRow returns the cost of that many µs per session at watchRate.
func watchRow(what string, micros float64) row {
	return row{what: what, gate: fmt.Sprintf("%.1f %%", micros*watchRate/1e6*100), other: "–"}
}

// startWatching starts a chain whose gate watches the sessions of its PHP.
func (st *stage) startWatching(name string) (*chain, error) {
	sessions := filepath.Join(st.Dir(), name)
	if err := os.Mkdir(sessions, 0o700); err != nil {
		return nil, err
	}
	settings := recommended
	settings.block = fmt.Sprintf("session {\n watch = \"files\"\n handler = \"files\"\n save_path = %q\n}", sessions)
	php := rig.PHPOptions{Workers: workers, INI: map[string]string{"session.save_path": sessions}}
	return st.startChain(name, php, &settings)
}

// watchLoad is a load of requests that open their sessions and close them.
func watchLoad(st *stage, c *chain) *side[served] {
	l := &load{site: c.site, path: "/count.php", want: "0\n", browsers: 8, sessions: 100}
	return &side[served]{name: c.name, measure: func() (served, error) { return c.serve(st, l) }}
}

// othersCost is the CPU time of a gate per session that is opened and closed in its folder, at watchRate.
func othersCost(st *stage, c *chain) (time.Duration, error) {
	dir := filepath.Join(st.Dir(), c.name)
	before, err := c.gate.CPU()
	if err != nil {
		return 0, err
	}
	const burst = watchRate / 100
	n := 0
	begun := time.Now()
	for ticks := full(st, 100, 5); n < ticks*burst; {
		for range burst {
			n++
			if err := openAndClose(filepath.Join(dir, fmt.Sprintf("sess_other%05d", n%1000))); err != nil {
				return 0, err
			}
		}
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / watchRate)))
	}
	after, err := c.gate.CPU()
	return (after - before) / time.Duration(n), err
}

func openAndClose(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("count|i:1;")
	return errors.Join(err, f.Close())
}
