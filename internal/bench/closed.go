package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// closedOften is how many hand-offs a round measures.
const closedOften = 10

// measureClosed measures how long it takes from a script's session_write_close() until the session_start() of a request
// that waits, while the script works on. The gate looks at PHP-FPM's workers; without the gate the request waits in
// session_start(), if the handler locks.
func measureClosed(st *stage) ([]row, error) {
	redis, err := st.Redis(rig.StoreOptions{})
	if err != nil {
		return nil, err
	}
	files := handler{name: "files"}
	unlocked := handler{"phpredis without locking", rig.RedisSessions(redis, false)}
	settings := recommended
	settings.block = `session { watch = "workers" }`
	var sides []*side[series]
	for _, h := range []struct {
		handler
		settings *gateSettings
	}{{files, &settings}, {files, nil}, {unlocked, &settings}} {
		c, err := st.startChain(h.name, rig.PHPOptions{Workers: workers, INI: h.ini}, h.settings)
		if err != nil {
			return nil, err
		}
		sides = append(sides, &side[series]{name: h.name, measure: func() (series, error) { return st.closed(c.site) }})
	}
	if err := interleave(st.plan("a session that is closed early", 15), sides...); err != nil {
		return nil, err
	}
	gate, own, freed := sides[0], sides[1], sides[2]
	return []row{
		closedRow("Hand-off after a close, files, p50", gate, own, 50, atMostOf(5, "ms")),
		closedRow("the same, p99", gate, own, 99, atMostOf(20, "ms")),
		closedRow("the same, phpredis without locking, p50", freed, nil, 50, atMostOf(5, "ms")),
		closedRow("the same, p99", freed, nil, 99, atMostOf(20, "ms")),
	}, nil
}

// closedRow shows a percentile of all hand-offs of all rounds. Without a lock there is nothing to compare it with.
func closedRow(what string, gate, own *side[series], percent float64, t target) row {
	pooled := func(s *side[series]) (all series) {
		for _, round := range s.rounds {
			all = append(all, round...)
		}
		return all
	}
	got := pooled(gate).percentile(percent)
	r := row{what: what, gate: number(got) + " ms", other: "–", value: got, target: t}
	if own != nil {
		of1 := func(s series) float64 { return s.percentile(percent) }
		r.other = number(pooled(own).percentile(percent)) + " ms: the handler's own lock"
		r.ratios = of(gate, of1).over(of(own, of1))
	}
	return r
}

// closed measures hand-offs in milliseconds. Each has a session of its own.
func (st *stage) closed(site *rig.Site) (all series, err error) {
	first, err := openBrowser(st.ctx, site)
	if err != nil {
		return nil, err
	}
	defer first.close()
	second, err := openBrowser(st.ctx, site)
	if err != nil {
		return nil, err
	}
	defer second.close()
	for range closedOften {
		took, err := handedOver(first, second, st.session(), 150*time.Millisecond)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	return all, nil
}

// handedOver has a script hold a session, and another one wait for it.
func handedOver(first, second *browser, session string, held time.Duration) (float64, error) {
	var closed, entered int64
	var firstErr error
	var done sync.WaitGroup
	done.Go(func() {
		firstErr = readTimes(first, fmt.Sprintf("/closed.php?ms=%d", held.Milliseconds()), session, new(int64), &closed)
	})
	time.Sleep(40 * time.Millisecond) // it comes second
	err := readTimes(second, "/closed.php?ms=0", session, &entered, new(int64))
	done.Wait()
	if firstErr != nil {
		err = firstErr
	}
	return millis(time.Duration(entered - closed)), err
}

func readTimes(b *browser, path, session string, entered, closed *int64) error {
	body, err := b.get(path, session)
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(body), entered, closed); err != nil {
		return fmt.Errorf("read %q of %s: %w", body, path, err)
	}
	return nil
}
