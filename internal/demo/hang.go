package demo

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The third part: a script that hangs with its session open.
const (
	hangWork   = time.Minute
	hangBound  = 20 * time.Second // the longest time that anything is waited for
	hangPages  = 12               // that the visitor requests in the meantime
	hangClick  = 250 * time.Millisecond
	hangOthers = 100 * time.Millisecond // between two other visitors

	// Settings of the gates. The defaults are 10 s, 60 s and 5 s.
	hangMaxWait      = 3 * time.Second
	hangTerminate    = 6 * time.Second // expiry of the gate that ends the script
	hangExpiry       = 3 * time.Second
	hangAbandonAfter = 2 * time.Second
)

// hangs runs all measurements concurrently, to save time: scripts that hang do not disturb each other.
func (s *story) hangs(ctx context.Context) (err error) {
	s.progress.begin()
	files, err := s.stage("3a", conditions{gateSettings: fmt.Sprintf(`lock {
    max_wait  = "%v"
    expiry    = "%v"
    on_expiry = "terminate"
  }`, hangMaxWait, hangTerminate)})
	if err != nil {
		return err
	}
	defer files.stop(&err)
	ini, err := s.unlocked()
	if err != nil {
		return err
	}
	unlocked, err := s.stage("3b", conditions{ini: ini, gateSettings: fmt.Sprintf(`lock {
    expiry        = "%v"
    abandon_after = "%v"
  }`, hangExpiry, hangAbandonAfter)})
	if err != nil {
		return err
	}
	defer unlocked.stop(&err)
	s.progress.step("a script hangs, its visitor clicks on")
	h := &Hang{Bound: millis(hangBound)}
	var all []func() error
	for _, sd := range files.sides() {
		all = append(all, func() error { return s.hangOn(ctx, sd, h.Files.of(sd)) })
	}
	for _, sd := range unlocked.sides() {
		all = append(all, func() error { return hangUnlocked(ctx, sd, h.Unlocked.of(sd)) })
	}
	s.figures.Hang = h
	return inParallel(all...)
}

// hangOn measures one column with PHP's lock: what happens to the pages that the visitor opens in other tabs, to the
// workers, and to the other visitors.
func (s *story) hangOn(ctx context.Context, sd *side, h *HangSide) error {
	if err := sd.warmUp(ctx); err != nil {
		return fmt.Errorf("%v: %w", sd, err)
	}
	v, release, err := startHanging(ctx, sd, 0)
	if err != nil {
		return fmt.Errorf("%v: %w", sd, err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, hangBound)
	defer cancel()
	w := s.watch(ctx, sd)
	others := startCrowd(ctx, sd, hangOthers)
	opened := time.Now()
	var patient sync.WaitGroup
	patient.Go(func() { h.Freed = v.untilWorks(ctx) })
	h.tell(v.click(ctx))
	patient.Wait()
	<-ctx.Done()
	others.depart()
	visits := others.between(opened, opened.Add(hangBound-time.Second)) // those that had a second at least
	_, failed := sumUp(visits)
	h.Others, h.OthersAnswered = len(visits), len(visits)-failed
	h.Workers, err = w.end()
	return err
}

// startHanging starts another script that hangs. It returns when the script runs; release ends its request.
func startHanging(ctx context.Context, sd *side, already int) (v *visitor, release func(), err error) {
	if v, err = newVisitor(ctx, sd); err != nil {
		return nil, nil, err
	}
	if err := sd.until(ctx, func(conns int) bool { return conns == already }); err != nil {
		return nil, nil, err
	}
	hanging, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { v.get(hanging, workPage(hangWork)) })
	release = func() {
		cancel()
		done.Wait()
		v.leave()
	}
	if err := sd.until(ctx, func(conns int) bool { return conns > already }); err != nil {
		release()
		return nil, nil, err
	}
	return v, release, nil
}

// click asks for pages, one after the other in tabs of their own, and waits for all.
func (v *visitor) click(ctx context.Context) []answer {
	answers := make([]answer, hangPages)
	var tabs sync.WaitGroup
	for i := range answers {
		tabs.Go(func() { answers[i] = v.get(ctx, workPage(0)) })
		pause(ctx, hangClick)
	}
	tabs.Wait()
	return answers
}

// tell summarizes the answers to the visitor's clicks: their number, and the status and time of the median one.
func (h *HangSide) tell(answers []answer) {
	h.Pages = len(answers)
	answers = slices.DeleteFunc(answers, func(a answer) bool { return a.status == 0 })
	h.PagesAnswered = len(answers)
	if len(answers) == 0 {
		return
	}
	slices.SortFunc(answers, func(a, b answer) int { return cmp.Compare(a.took, b.took) })
	typical := answers[len(answers)/2]
	h.PageStatus, h.PageWait = typical.status, millis(typical.took)
}

// hangUnlocked measures one column without PHP's lock: the time until the session works again, for a visitor who stays
// and for one who closes the tab.
func hangUnlocked(ctx context.Context, sd *side, h *HangUnlocked) error {
	if err := sd.warmUp(ctx); err != nil {
		return fmt.Errorf("%v, no lock of PHP's: %w", sd, err)
	}
	for i, visit := range []struct {
		leaves bool
		wait   *Wait
	}{{false, &h.Stays}, {true, &h.Leaves}} {
		v, release, err := startHanging(ctx, sd, i)
		if err != nil {
			return fmt.Errorf("%v, no lock of PHP's: %w", sd, err)
		}
		*visit.wait = nextPage(ctx, v, release, visit.leaves)
	}
	return nil
}

// nextPage measures how long the next page of a session takes while another script of it hangs, whose visitor may leave
// it first.
func nextPage(ctx context.Context, v *visitor, release func(), leaves bool) Wait {
	if leaves {
		release()
	} else {
		defer release()
	}
	ctx, cancel := context.WithTimeout(ctx, hangBound)
	defer cancel()
	return v.untilWorks(ctx)
}
