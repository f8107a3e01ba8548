package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

const (
	waitedFor  = 100             // sessions that a script holds, and another request waits for
	heldLong   = 9 * time.Second // by each script, at the least
	heldSpread = 3 * time.Second // between the shortest and the longest
)

// measureWaiting measures what it costs the gate to look at the workers of long scripts, of many sessions at once, each
// of which another request waits for; and how long those wait after the scripts have closed their sessions.
func measureWaiting(st *stage) ([]row, error) {
	settings := gateSettings{block: "session { watch = \"workers\" }\n  lock { max_wait = \"55s\" }"}
	c, err := st.startChain("workers", rig.PHPOptions{Workers: waitedFor + 20}, &settings)
	if err != nil {
		return nil, err
	}
	s := &side[waiting]{name: "looking at workers", measure: func() (waiting, error) { return st.waiting(c) }}
	p := st.plan("sessions of long scripts that are waited for", 3)
	p.warmUp = false
	if err := interleave(p, s); err != nil {
		return nil, err
	}
	var delays series
	for _, w := range s.rounds {
		delays = append(delays, w.handoffs...)
	}
	percent := of(s, func(w waiting) float64 { return w.cpu }).median()
	p50, p99 := delays.percentile(50), delays.percentile(99)
	return []row{
		{what: fmt.Sprintf("CPU of the gate, %d sessions of long scripts waited for", waitedFor),
			gate: fmt.Sprintf("%.2f %% of one CPU", percent), other: "–", value: percent, target: atMostOf(1, "%")},
		{what: "Hand-off after a close meanwhile, p50", gate: number(p50) + " ms", other: "–", value: p50, target: noTarget},
		{what: "the same, p99", gate: number(p99) + " ms", other: "–", value: p99, target: noTarget},
	}, nil
}

// waiting is what came of one round.
type waiting struct {
	cpu      float64 // of the gate, in percent of one CPU, while all sessions are held
	handoffs series  // in ms
}

// waiting has all sessions held and waited for, once.
func (st *stage) waiting(c *chain) (w waiting, err error) {
	sessions, long := full(st, waitedFor, 3), full(st, heldLong, time.Second)
	var mu sync.Mutex
	var done sync.WaitGroup
	began := time.Now()
	for range sessions {
		held := long + rand.N(full(st, heldSpread, 100*time.Millisecond))
		session := st.session()
		done.Go(func() {
			took, handErr := st.waitsFor(c.site, session, held)
			mu.Lock()
			defer mu.Unlock()
			if handErr != nil {
				err = handErr
			}
			w.handoffs = append(w.handoffs, took)
		})
	}
	time.Sleep(time.Until(began.Add(long / 3)))
	before, cpuErr := c.gate.CPU()
	if cpuErr != nil {
		return w, cpuErr
	}
	from := time.Now()
	time.Sleep(time.Until(began.Add(long)))
	after, cpuErr := c.gate.CPU()
	w.cpu = float64(after-before) / float64(time.Since(from)) * 100
	done.Wait()
	if err == nil {
		err = cpuErr
	}
	return w, err
}

// waitsFor has a request wait for a session that a script holds, and returns the milliseconds from its close.
func (st *stage) waitsFor(site *rig.Site, session string, held time.Duration) (float64, error) {
	first, err := openBrowser(st.ctx, site)
	if err != nil {
		return 0, err
	}
	defer first.close()
	second, err := openBrowser(st.ctx, site)
	if err != nil {
		return 0, err
	}
	defer second.close()
	return handedOver(first, second, session, held)
}
