package demo

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// The first part: two scripts of one session, one of which waits for the other's lock.
const (
	twoWork   = 350 * time.Millisecond
	twoRounds = 3 // of each side, by turns; the middle one counts
)

func (s *story) twoScripts(ctx context.Context) (err error) {
	s.progress.begin()
	st, err := s.stage("1", conditions{})
	if err != nil {
		return err
	}
	defer st.stop(&err)
	var rounds Pair[[]TwoScripts]
	for range twoRounds {
		for _, sd := range st.sides() {
			s.progress.step("two scripts of one session, %v", sd)
			round, err := s.twoScriptsOn(ctx, sd)
			if err != nil {
				return fmt.Errorf("%v: %w", sd, err)
			}
			*rounds.of(sd) = append(*rounds.of(sd), round)
		}
	}
	s.figures.TwoScripts = &Pair[TwoScripts]{Without: middle(rounds.Without), With: middle(rounds.With)}
	return nil
}

func (s *story) twoScriptsOn(ctx context.Context, sd *side) (r TwoScripts, err error) {
	v, err := newVisitor(ctx, sd)
	if err != nil {
		return r, err
	}
	defer v.leave()
	if err := sd.until(ctx, idle); err != nil {
		return r, err
	}
	w := s.watch(ctx, sd)
	began := time.Now()
	answers := v.getAll(ctx, 2, workPage(twoWork))
	r.Total = millis(time.Since(began))
	if r.Workers, err = w.end(); err != nil {
		return r, err
	}
	for _, a := range answers {
		if a.status != http.StatusOK {
			return r, fmt.Errorf("a script was answered %d: %s", a.status, firstLine(a.body))
		}
	}
	return r, nil
}

// middle is the round that took neither the longest nor the shortest.
func middle(rounds []TwoScripts) TwoScripts {
	slices.SortFunc(rounds, func(a, b TwoScripts) int { return cmp.Compare(a.Total, b.Total) })
	return rounds[len(rounds)/2]
}
