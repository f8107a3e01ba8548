package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// A storm is what a page does that sends many requests of its session at once.
const (
	stormSize   = 40
	stormMillis = 100 // each script works on its session for so long
)

// visitEvery is the pause between two visits of other visitors. They come as
// they like, whether the ones before them have their page or not.
const visitEvery = 5 * time.Millisecond

// measureStorm measures how long other visitors wait during a storm, against
// just before it, and how many of the storm's updates of its session are lost.
func measureStorm(st *stage) ([]row, error) {
	handlers, err := st.handlers()
	if err != nil {
		return nil, err
	}
	with, err := storms(st, handlers, " with the gate", &recommended)
	if err != nil {
		return nil, err
	}
	without, err := storms(st, handlers, " without a gate", nil)
	if err != nil {
		return nil, err
	}
	gated, plain := st.plan("with the gate", 7), st.plan("without a gate", 3)
	gated.warmUp, plain.warmUp = false, false // the visitors before the storm do
	if err := interleave(gated, with...); err != nil {
		return nil, err
	}
	if err := interleave(plain, without...); err != nil {
		return nil, err
	}
	var rows []row
	for i, h := range handlers {
		rows = append(rows, waitRow(h.name, with[i]), plainWaitRow(without[i]))
	}
	for i, h := range handlers {
		rows = append(rows, lostRow(h.name, with[i], without[i]))
	}
	return rows, nil
}

// stormed is what came of a storm.
type stormed struct {
	before, during float64 // p99 of the other visitors, in ms
	updates, lost  int
}

func (got stormed) p99Before() float64 { return got.before }

func (got stormed) p99During() float64 { return got.during }

func waitRow(name string, s *side[stormed]) row {
	before, during := of(s, stormed.p99Before), of(s, stormed.p99During)
	return row{
		what:   "Other visitors' p99, " + name,
		gate:   number(during.median()) + " ms",
		other:  number(before.median()) + " ms: before the storm",
		ratios: during.over(before),
		target: atMost(2),
	}
}

func plainWaitRow(s *side[stormed]) row {
	before, during := of(s, stormed.p99Before), of(s, stormed.p99During)
	return row{
		what:   "the same without a gate",
		gate:   "–",
		other:  number(during.median()) + " ms, from " + number(before.median()) + " ms before the storm",
		ratios: during.over(before),
	}
}

func lostRow(name string, with, without *side[stormed]) row {
	lost := of(with, func(got stormed) float64 { return float64(got.lost) })
	return row{
		what:   "Updates lost, " + name,
		gate:   lostOf(with),
		other:  lostOf(without) + ": without a gate",
		value:  lost.sum(),
		target: atMostOf(0, "lost"),
	}
}

func lostOf(s *side[stormed]) string {
	lost, updates := 0, 0
	for _, got := range s.rounds {
		lost, updates = lost+got.lost, updates+got.updates
	}
	return fmt.Sprintf("%d of %d", lost, updates)
}

// storms starts a chain for each handler.
func storms(st *stage, handlers []handler, suffix string, settings *gateSettings) ([]*side[stormed], error) {
	var sides []*side[stormed]
	for _, h := range handlers {
		c, err := st.startChain(h.name+suffix, rig.PHPOptions{Workers: workers, INI: h.ini}, settings)
		if err != nil {
			return nil, err
		}
		sides = append(sides, &side[stormed]{name: c.name, measure: func() (stormed, error) {
			return storm(st, c.site, st.session())
		}})
	}
	return sides, nil
}

// storm lets visitors come for a while, then sends the storm among them.
func storm(st *stage, site *rig.Site, session string) (got stormed, err error) {
	got.updates = full(st, stormSize, 2*workers) + 1
	if err := ask(st.ctx, site, "/work.php", session); err != nil { // the first update makes the session
		return got, err
	}
	quiet, stop := context.WithTimeout(st.ctx, full(st, 2*time.Second, 200*time.Millisecond))
	defer stop()
	before, err := visit(st.ctx, site, quiet.Done())
	if err != nil {
		return got, err
	}
	raging, over := context.WithCancel(st.ctx)
	var stormErr error
	var storming sync.WaitGroup
	storming.Go(func() {
		defer over()
		script := fmt.Sprintf("/work.php?ms=%d", full(st, stormMillis, 10))
		stormErr = together(got.updates-1, func(int) error { return ask(st.ctx, site, script, session) })
	})
	during, err := visit(st.ctx, site, raging.Done())
	storming.Wait()
	if err := errors.Join(err, stormErr); err != nil {
		return got, err
	}
	got.before, got.during = before.percentile(99), during.percentile(99)
	counted, err := count(st.ctx, site, session)
	got.lost = got.updates - counted
	return got, err
}

// visit sends visitors who want a page that needs no session, until done. It
// returns how many milliseconds each waited for it.
func visit(ctx context.Context, site *rig.Site, done <-chan struct{}) (series, error) {
	var visitors visitors
	defer visitors.goHome()
	next := time.NewTicker(visitEvery)
	defer next.Stop()
	var group sync.WaitGroup
	for coming := true; coming; {
		select {
		case <-next.C:
			group.Go(func() { visitors.visit(ctx, site) })
		case <-done:
			coming = false
		}
	}
	group.Wait()
	return visitors.waits, errors.Join(visitors.errs...)
}

// visitors keep their connections for the next visit.
type visitors struct {
	mu    sync.Mutex
	idle  []*browser
	waits series
	errs  []error
}

func (v *visitors) visit(ctx context.Context, site *rig.Site) {
	b, err := v.browser(ctx, site)
	var waited time.Duration
	if err == nil {
		start := time.Now()
		_, err = b.get("/hello.php", "")
		waited = time.Since(start)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if b != nil {
		v.idle = append(v.idle, b)
	}
	if err != nil {
		v.errs = append(v.errs, err)
		return
	}
	v.waits = append(v.waits, millis(waited))
}

func (v *visitors) browser(ctx context.Context, site *rig.Site) (*browser, error) {
	v.mu.Lock()
	if last := len(v.idle) - 1; last >= 0 {
		defer v.mu.Unlock()
		b := v.idle[last]
		v.idle = v.idle[:last]
		return b, nil
	}
	v.mu.Unlock()
	return openBrowser(ctx, site)
}

func (v *visitors) goHome() {
	for _, b := range v.idle {
		b.close()
	}
}

func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// together runs n functions at the same time.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { errs[i] = do(i) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// ask requests a page and accepts any answer.
func ask(ctx context.Context, site *rig.Site, path, session string) error {
	b, err := openBrowser(ctx, site)
	if err != nil {
		return err
	}
	defer b.close()
	if _, err = b.get(path, session); errors.Is(err, errStatus) {
		return nil
	}
	return err
}

// count returns how many updates there have been of a session.
func count(ctx context.Context, site *rig.Site, session string) (int, error) {
	b, err := openBrowser(ctx, site)
	if err != nil {
		return 0, err
	}
	defer b.close()
	body, err := b.get("/count.php", session)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(body)))
}
