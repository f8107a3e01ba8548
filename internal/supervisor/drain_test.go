package supervisor

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestADrainEndsWithTheLastRequest, of a gate that is served or of one that a reload has removed.
func TestADrainEndsWithTheLastRequest(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGINT} {
		for _, removed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				other := block("b", "unix:/b") + operatorsAt("unix:/o")
				p := begin(w, block("a", "unix:/a", shared, watched)+stores(1)+other)
				r := p.gateOf("a").begin()
				if removed {
					p.mustReload(other)
				}
				p.signal(sig)
				if ended, _ := p.hasEnded(); ended || !p.State().Draining {
					t.Fatalf("got ended %v, draining %v, want a drain that waits for the request", ended, p.State().Draining)
				}
				mustBe(t, "what is open meanwhile", w.isOpen(), storeOne+", unix:/o, watcher")
				mustBe(t, "the state", lastOf(w.notified()), "STOPPING=1\nSTATUS=draining")
				time.Sleep(10 * time.Second)
				r.end()
				if ended, err := p.hasEnded(); !ended || err != nil {
					t.Errorf("got ended %v, %v after the last request, want an end", ended, err)
				}
				mustBe(t, "what is open at the end", w.isOpen(), "")
				w.mustLog("draining", "signal="+sig.String(), "timeout_ms=30000", "all requests are done")
				mustBe(t, "what was ended last", lastOf(w.changed), "streams")
			})
		}
	}
}

// TestADrainHasALimit, at which waiters are sent away, and scripts have a moment more.
func TestADrainHasALimit(t *testing.T) {
	for name, c := range map[string]struct {
		request time.Duration
		fails   bool
	}{
		"a request that ends with its moment": {drainTimeout + DrainGrace - time.Nanosecond, false},
		"one that does not":                   {drainTimeout + DrainGrace + time.Nanosecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, block("a", "unix:/a", shared, watched)+stores(1)+block("b", "unix:/b"))
				r := p.gateOf("a").begin()
				p.signal(syscall.SIGTERM)
				time.Sleep(min(c.request, drainTimeout+DrainGrace))
				if !c.fails {
					r.end()
				}
				ended, err := p.hasEnded()
				if !ended || (err != nil) != c.fails {
					t.Fatalf("got ended %v, %v, want failed %v", ended, err, c.fails)
				}
				if c.fails {
					mustBe(t, "the error", err.Error(), `gate "a": requests still running after 32s`)
					w.mustNotLog("all requests are done")
				}
				mustBe(t, "what is open", w.isOpen(), "")
			})
		})
	}
}

// TestADrainEndsWhatAReloadHasRemoved at its own limit, which may be sooner than the minute that this has.
func TestADrainEndsWhatAReloadHasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a", watched)+block("b", "unix:/b"))
		p.gateOf("a").begin() // and never ends
		p.mustReload(block("b", "unix:/b"))
		p.signal(syscall.SIGTERM)
		time.Sleep(drainTimeout + DrainGrace - time.Nanosecond)
		if ended, _ := p.hasEnded(); ended {
			t.Error("the drain has ended before its limit")
		}
		time.Sleep(time.Nanosecond)
		if ended, err := p.hasEnded(); !ended || err != nil {
			t.Errorf("got ended %v, %v, want an end at the limit", ended, err)
		}
		mustBe(t, "what is open", w.isOpen(), "")
	})
}

// TestASecondSignalExits, unless it is a reload; in a unit, unless it may be the first one that comes twice.
func TestASecondSignalExits(t *testing.T) {
	for name, c := range map[string]struct {
		unit  bool
		after time.Duration
		sig   syscall.Signal
		exits bool
	}{
		"at once":            {false, 0, syscall.SIGTERM, true},
		"another one":        {false, time.Minute, syscall.SIGINT, true},
		"a reload":           {false, time.Second, syscall.SIGHUP, false},
		"of a unit, at once": {true, 0, syscall.SIGTERM, false},
		"of a unit, later":   {true, sameSignal, syscall.SIGTERM, true},
		"of a unit, reload":  {true, sameSignal, syscall.SIGHUP, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var u Unit
				if c.unit {
					u = &fakeUnit{folder: newFolder()}
				}
				p := begin(w, block("a", "unix:/a"), with(u, 0), func(o *Options) { o.DrainTimeout = time.Hour })
				defer p.gateOf("a").begin().end()
				p.signal(syscall.SIGTERM)
				time.Sleep(c.after)
				p.reload(block("b", "unix:/b"))
				p.signal(c.sig)
				if w.hasExited() != c.exits {
					t.Errorf("got an exit %v, want %v", w.hasExited(), c.exits)
				}
				if c.exits {
					w.mustLog("exiting immediately", "signal="+c.sig.String())
				}
				if w.loads > 0 || p.servedGates() != "a=0/1 deaf" {
					t.Errorf("got %d reloads and the gates %s while draining, want none", w.loads, p.servedGates())
				}
			})
		})
	}
}

// TestAStartThatFailsServesNothing: whatever step it is that fails.
func TestAStartThatFailsServesNothing(t *testing.T) {
	text := block("a", "unix:/a", shared) + block("b", "systemd:b") + stores(1) + operatorsAt("unix:/o")
	for failAt := range 5 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			if w.failAt = failAt; failAt == 0 {
				w.failing("Judge", errors.New("cannot open /a"))
			}
			p, err := tryToBegin(w, text)
			if err == nil || !strings.Contains(err.Error(), "cannot open") {
				t.Errorf("step %d: got %v, want its error", failAt, err)
			}
			mustBe(t, "what is open", w.isOpen(), "")
			mustBe(t, "gates", p.servedGates(), "")
			if s := p.State(); s.Config != nil || len(w.states) > 0 {
				t.Errorf("got %+v and the states %q, want nothing served", s, w.states)
			}
		})
	}
}
