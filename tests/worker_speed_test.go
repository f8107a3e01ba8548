package tests

import (
	"slices"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// TestWhatLookingCosts logs how long each look takes, in a pool of many workers, by the process itself and by a helper.
// It asserts no time: machines differ, and this one may be busy.
func TestWhatLookingCosts(t *testing.T) {
	p := newPool(t, "files", rig.PHPOptions{Workers: 50})
	session := newSession()
	s := p.run(t, "/steps.php?steps=start", session)
	s.next(0)
	s.await(1)
	for name, f := range map[string]phpworker.Finder{
		"by itself": &phpworker.Local{}, "by a helper": startHelper(t, helperCaps).client,
	} {
		w := s.find(f)
		found := measure(t, 100, func() error {
			w, err := f.Find(s.raw())
			if err == nil {
				err = w.Close()
			}
			return err
		})
		looked := measure(t, 1000, func() error { _, err := w.Session(); return err })
		active := measure(t, 100, func() error { _, err := w.Activity(); return err })
		t.Logf("%s: find %v, session %v, activity %v (median)", name, found, looked, active)
	}
}

// measure returns the median of how long a function takes.
func measure(t *testing.T, times int, do func() error) time.Duration {
	t.Helper()
	var took []time.Duration
	for range times {
		start := time.Now()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2]
}
