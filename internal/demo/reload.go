package demo

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// The fourth part: a visitor who cannot wait.
const (
	reloadTimes = 20
	reloadWork  = 500 * time.Millisecond
	reloadEvery = 90 * time.Millisecond // the work is no multiple of it, or the last reload's result would be random
)

func (s *story) reloads(ctx context.Context) (err error) {
	s.progress.begin()
	st, err := s.stage("4", conditions{})
	if err != nil {
		return err
	}
	defer st.stop(&err)
	p := new(Pair[Reloads])
	for _, sd := range st.sides() {
		s.progress.step("%d reloads of one page, %v", reloadTimes, sd)
		if *p.of(sd), err = s.reloadsOn(ctx, sd); err != nil {
			return fmt.Errorf("%v: %w", sd, err)
		}
	}
	s.figures.Reloads = p
	return nil
}

// reloadsOn measures one column.
func (s *story) reloadsOn(ctx context.Context, sd *side) (r Reloads, err error) {
	if err := sd.warmUp(ctx); err != nil {
		return r, err
	}
	v, err := newVisitor(ctx, sd)
	if err != nil {
		return r, err
	}
	defer v.leave()
	w := s.watch(ctx, sd)
	last := v.reload(ctx, workPage(reloadWork), reloadTimes, reloadEvery)
	if last.status != http.StatusOK {
		return r, fmt.Errorf("the last reload was answered %d: %s", last.status, firstLine(last.body))
	}
	if err := sd.until(ctx, idle); err != nil { // scripts of closed connections may still run
		return r, err
	}
	if r.Workers, err = w.end(); err != nil {
		return r, err
	}
	r.Requests, r.Last = 1+reloadTimes, millis(last.took)
	r.Scripts, err = sd.scripts(workPage(reloadWork))
	return r, err
}

// reload visits a page and reloads it again and again. Each time the browser closes the connection of the request
// before. It returns the last answer.
func (v *visitor) reload(ctx context.Context, page string, times int, every time.Duration) answer {
	var abandoned sync.WaitGroup
	defer abandoned.Wait()
	for range times {
		loading, cancel := context.WithCancel(ctx)
		abandoned.Go(func() { v.get(loading, page) })
		pause(ctx, every)
		cancel()
	}
	return v.get(ctx, page)
}
