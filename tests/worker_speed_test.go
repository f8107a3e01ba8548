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

// TestAChangeIsAwaited by the process itself and by a helper, over unix sockets and TCP: each way to close a session.
func TestAChangeIsAwaited(t *testing.T) {
	t.Parallel()
	h := startHelper(t, helperCaps)
	for _, network := range []rig.Addr{rig.Unix, rig.TCP} {
		p := newPool(t, "files", rig.PHPOptions{Listen: network, Workers: 6})
		for name, f := range map[string]phpworker.Finder{"by itself": new(phpworker.Local), "by a helper": h.client} {
			for _, close := range []string{"close", "abort", "destroy"} {
				t.Run(network.Network+", "+name+", "+close, func(t *testing.T) {
					t.Parallel()
					s := p.run(t, "/steps.php?steps=start,"+close, newSession())
					s.await(0)
					w := s.find(f)
					for n, want := range []phpworker.Status{phpworker.Active, phpworker.None} {
						seen, err := w.Session()
						mustDo(t, err)
						changed := make(chan error, 1)
						go func() { changed <- w.Await(t.Context(), seen, 0) }()
						s.next(n)
						mustDo(t, <-changed)
						if now, err := w.Session(); err != nil || now == seen {
							t.Errorf("got %+v (%v) after it has changed", now, err)
						}
						eventually(t, "it is as expected", func() bool {
							now, err := w.Session()
							return err == nil && now.Status == want
						})
						s.await(n + 1)
					}
				})
			}
		}
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
