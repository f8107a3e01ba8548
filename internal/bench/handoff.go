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
// its session to the start of the next one's, with everything between: the
// session is written, unlocked, locked and read again, and with the gate PHP
// starts the next script. How long that takes by itself is measured by a visitor who has
// no gate and sends one request after the other.
func measureHandoff(st *stage) ([]row, error) {
	handlers, err := st.handlers()
	if err != nil {
		return nil, err
	}
	var all []*side[handed]
	for _, h := range handlers[:3] { // a request without the lock has nothing to hand off
		o := rig.PHPOptions{Workers: workers, INI: h.ini}
		plain, err := st.startChain(h.name+" without a gate", o, nil)
		if err != nil {
			return nil, err
		}
		gate, err := st.startChain(h.name+" with the gate", o, &recommended)
		if err != nil {
			return nil, err
		}
		all = append(all, handoffSide(st, gate, together), handoffSide(st, plain, together), handoffSide(st, plain, inTurn))
	}
	if err := interleave(st.plan("40 requests of a session", 15), all...); err != nil {
		return nil, err
	}
	var rows []row
	for i, h := range handlers[:3] {
		gate, own, alone := all[3*i], all[3*i+1], all[3*i+2]
		rows = append(rows,
			handoffRow("Hand-off of a session, "+h.name, gate, own, "the handler's own lock", atMost(1)),
			handoffRow("the same", gate, alone, "no request waits", noTarget))
	}
	return rows, nil
}

// handed is what came of requests of one session.
type handed struct {
	handoff float64 // in ms
	gaveUp  int     // those that did not get their session
}

func handoffRow(what string, gate, other *side[handed], otherName string, t target) row {
	took := func(got handed) float64 { return got.handoff }
	with, without := of(gate, took), of(other, took)
	r := row{
		what:   what,
		gate:   number(with.median()) + " ms",
		other:  number(without.median()) + " ms: " + otherName,
		ratios: with.over(without),
		target: t,
	}
	gaveUp := of(other, func(got handed) float64 { return float64(got.gaveUp) })
	if gaveUp.median() > 0 {
		r.other += fmt.Sprintf("; %.0f of %d gave up", gaveUp.median(), handoffs)
	}
	return r
}

// handoffSide sends the requests to c in the way of send.
func handoffSide(st *stage, c *chain, send func(n int, do func(int) error) error) *side[handed] {
	return &side[handed]{name: c.name, measure: func() (handed, error) {
		return handoff(st, c.site, send)
	}}
}

func handoff(st *stage, site *rig.Site, send func(n int, do func(int) error) error) (handed, error) {
	var browsers [handoffs]*browser
	for i := range browsers {
		b, err := openBrowser(st.ctx, site)
		if err != nil {
			return handed{}, err
		}
		defer b.close()
		browsers[i] = b
	}
	session := st.session()
	var worked [handoffs]time.Duration // zero: did not get its session
	start := time.Now()
	err := send(handoffs, func(i int) (err error) {
		worked[i], err = work(browsers[i], session)
		return err
	})
	return divide(time.Since(start), worked[:]), err
}

// inTurn runs n functions one after the other.
func inTurn(n int, do func(i int) error) error {
	for i := range n {
		if err := do(i); err != nil {
			return err
		}
	}
	return nil
}

// divide divides the time in which no script worked by the number of requests that got their session.
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

// work requests one script, and returns how long it worked on its session.
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
