package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// The sixth part: an export that closes its session before its work, so that a progress bar can poll its state.
const (
	exportWork  = 3 * time.Second
	exportEvery = 200 * time.Millisecond
)

func (s *story) exports(ctx context.Context) (err error) {
	s.progress.begin()
	blind, err := s.stage("6a", conditions{gateSettings: `session { watch = "none" }`})
	if err != nil {
		return err
	}
	defer blind.stop(&err)
	watching, err := s.stage("6b", conditions{watched: true})
	if err != nil {
		return err
	}
	defer watching.stop(&err)
	ini, err := s.unlocked()
	if err != nil {
		return err
	}
	unlocked, err := s.stage("6c", conditions{ini: ini})
	if err != nil {
		return err
	}
	defer unlocked.stop(&err)
	s.progress.step("an export, and its progress bar")
	f := new(Export)
	s.figures.Export = f
	return inParallel(
		func() error { return exportOn(ctx, watching.without, &f.Without) },
		func() error { return exportOn(ctx, blind.with, &f.Blind) },
		func() error { return exportOn(ctx, watching.with, &f.With) },
		func() error { return exportOn(ctx, unlocked.without, &f.Unlocked.Without) },
		func() error { return exportOn(ctx, unlocked.with, &f.Unlocked.With) },
	)
}

// exportOn measures what a progress bar sees of an export.
func exportOn(ctx context.Context, sd *side, f *ExportSide) error {
	if err := sd.warmUp(ctx); err != nil {
		return fmt.Errorf("%v: %w", sd, err)
	}
	v, err := newVisitor(ctx, sd)
	if err != nil {
		return fmt.Errorf("%v: %w", sd, err)
	}
	defer v.leave()
	export := make(chan answer, 1)
	go func() { export <- v.get(ctx, fmt.Sprintf("/close.php?ms=%d", exportWork.Milliseconds())) }()
	pause(ctx, exportEvery) // the export comes first
	for {
		polled := time.Now()
		a := v.get(ctx, countPage)
		select {
		case end := <-export:
			f.Slowest = max(f.Slowest, millis(a.took))
			f.Total = millis(end.took)
			if end.status != http.StatusOK {
				return fmt.Errorf("%v: the export was answered %d: %s", sd, end.status, firstLine(end.body))
			}
			return ctx.Err()
		default:
		}
		if a.status != http.StatusOK {
			return fmt.Errorf("%v: a poll was answered %d: %s", sd, a.status, firstLine(a.body))
		}
		f.Polls++
		f.Slowest = max(f.Slowest, millis(a.took))
		pause(ctx, exportEvery-time.Since(polled))
	}
}
