package main

import (
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

const (
	handoffs      = 40
	handoffScript = "/handoff.php?ms=5"
)

// measureHandoff measures how long it takes from the end of one script's work on
// its session to the begin of the next one's, with all that is between: the
// session is written, unlocked, locked and read again, and with the gate PHP
// starts the next script.
func measureHandoff(st *stage) ([]row, error) {
	handlers, err := st.handlers()
	if err != nil {
		return nil, err
	}
	patient := handlers[:3] // who goes on without the lock has nothing to hand off
	var with, without []*side[handed]
	for _, h := range patient {
		plain, err := handoffSide(st, h, "without a gate", nil)
		if err != nil {
			return nil, err
		}
		gate, err := handoffSide(st, h, "with the gate", &recommended)
		if err != nil {
			return nil, err
		}
		without, with = append(without, plain), append(with, gate)
	}
	if err := interleave(st.plan("40 requests of a session", 15), append(without, with...)...); err != nil {
		return nil, err
	}
	var rows []row
	for i, h := range patient {
		rows = append(rows, handoffRow(h.name, with[i], without[i]))
	}
	return rows, nil
}

// handed is what came of requests of one session that were sent at once.
type handed struct {
	handoff float64 // in ms
	gaveUp  int     // those that did not get their session
}

func handoffRow(name string, with, without *side[handed]) row {
	took := func(got handed) float64 { return got.handoff }
	gate, own := of(with, took), of(without, took)
	r := row{
		what:   "Hand-off of a session, " + name,
		gate:   fmt.Sprintf("%.2f ms", gate.median()),
		other:  fmt.Sprintf("%.2f ms: the handler's own lock", own.median()),
		ratios: gate.over(own),
		target: atMost(1),
	}
	gaveUp := of(without, func(got handed) float64 { return float64(got.gaveUp) })
	if gaveUp.median() > 0 {
		r.other += fmt.Sprintf("; %.0f of %d gave up", gaveUp.median(), handoffs)
	}
	return r
}

func handoffSide(st *stage, h handler, how string, settings *gateSettings) (*side[handed], error) {
	c, err := st.startChain(h.name+" "+how, rig.PHPOptions{Workers: workers, INI: h.ini}, settings)
	if err != nil {
		return nil, err
	}
	return &side[handed]{name: c.name, measure: func() (handed, error) {
		return handoff(st, c.site, st.session())
	}}, nil
}

// handoff sends the requests, all at once.
func handoff(st *stage, site *rig.Site, session string) (handed, error) {
	var browsers [handoffs]*browser
	for i := range browsers {
		b, err := openBrowser(st.ctx, site)
		if err != nil {
			return handed{}, err
		}
		defer b.close()
		browsers[i] = b
	}
	var worked [handoffs]time.Duration // zero: did not get its session
	start := time.Now()
	err := together(handoffs, func(i int) (err error) {
		worked[i], err = work(browsers[i], session)
		return err
	})
	return divide(time.Since(start), worked[:]), err
}

// divide shares the time that nobody worked among those who got their session.
func divide(total time.Duration, worked []time.Duration) (got handed) {
	for _, w := range worked {
		total -= w
		if w == 0 {
			got.gaveUp++
		}
	}
	got.handoff = millis(total) / float64(len(worked)-got.gaveUp)
	return got
}

// work asks for one script, and returns how long it worked on its session.
func work(b *browser, session string) (time.Duration, error) {
	body, err := b.get(handoffScript, session)
	if err != nil {
		return 0, err
	}
	var got int
	var worked time.Duration
	if _, err := fmt.Sscan(string(body), &got, (*int64)(&worked)); err != nil {
		return 0, fmt.Errorf("read %q of %s: %w", body, handoffScript, err)
	}
	if got == 0 {
		return 0, nil
	}
	return worked, nil
}
