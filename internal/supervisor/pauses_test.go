package supervisor

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestPausesOutliveAReloadAndTheProcess: a gate that is made anew is paused for the rest of its time.
func TestPausesOutliveAReloadAndTheProcess(t *testing.T) {
	text := block("a", "systemd:a") + block("b", "systemd:b") + block("c", "systemd:c")
	synctest.Test(t, func(t *testing.T) {
		f := newFolder()
		f.pauses = map[string]time.Time{"a": time.Now().Add(time.Hour), "b": time.Now().Add(-time.Second), "gone": time.Now().Add(time.Hour)}
		p := begin(newWorld(t), text, with(&fakeUnit{folder: f}, 0))
		if a, b, c := p.gateOf("a").pausedFor(), p.gateOf("b").pausedFor(), p.gateOf("c").pausedFor(); a != time.Hour || b != 0 || c != 0 {
			t.Errorf("got pauses of %v, %v and %v, want an hour and none", a, b, c)
		}
		p.gateOf("b").Pause(time.Minute)
		time.Sleep(20 * time.Second)
		p.mustReload(text)
		if got := p.gateOf("b").pausedFor(); got != time.Minute {
			t.Errorf("got a pause of %v after a reload of the same gate, want it as it was", got)
		}
		p.mustReload(block("b", "unix:/b") + block("c", "systemd:c"))
		if got := p.gateOf("b").pausedFor(); got != 40*time.Second {
			t.Errorf("got a pause of %v for the gate that has moved, want the rest", got)
		}
		p.mustReload(text)
		next := begin(newWorld(t), text, with(&fakeUnit{folder: f}, 0))
		for _, p := range []*process{p, next} {
			if a, b := p.gateOf("a").pausedFor(), p.gateOf("b").pausedFor(); a != time.Hour-20*time.Second || b != 40*time.Second {
				t.Errorf("got pauses of %v and %v, want the rest of each", a, b)
			}
		}
		next.gateOf("b").Resume()
		next.gateOf("c").Pause(time.Second)
		if got := f.paused(); len(got) != 3 || got["c"] != time.Now().Add(time.Second) || !got["b"].IsZero() {
			t.Errorf("got the pauses %v, want those of a, gone and c", got)
		}
	})
}

// TestPausesAreTheNextProcessesAfterAHandOver: what that ends, ends here too, and nothing is saved here any longer.
func TestPausesAreTheNextProcessesAfterAHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder()
		f.pauses = map[string]time.Time{"a": time.Now().Add(time.Hour)}
		old, _, r := leaving(t, f)
		next := begin(newWorld(t), block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
		time.Sleep(time.Second)
		synctest.Wait()
		g := old.w.gates[0]
		if g.pausedFor() == 0 {
			t.Error("the pause has ended in the process that has handed over")
		}
		f.failing("LoadPauses", errors.New("no such folder"))
		next.gateOf("a").Resume()
		time.Sleep(time.Second)
		synctest.Wait()
		if g.pausedFor() == 0 {
			t.Error("the pause has ended though nothing is known of it")
		}
		f.failing("LoadPauses", nil)
		time.Sleep(followPause)
		synctest.Wait()
		if g.pausedFor() != 0 {
			t.Error("the pause goes on in the process that has handed over")
		}
		g.Pause(time.Minute)
		if got := f.paused(); len(got) > 0 {
			t.Errorf("got the pauses %v by a process that has handed over, want none", got)
		}
		r.end()
	})
}

// TestPausesThatCannotBeKept are logged, and their gates are paused all the same.
func TestPausesThatCannotBeKept(t *testing.T) {
	const lost, unsaved = "pauses of the previous process are not known", "a restart would end this pause"
	for name, c := range map[string]struct {
		method string
		err    error
		logs   string
	}{
		"they cannot be read":    {"LoadPauses", errors.New("not JSON"), lost},
		"they cannot be written": {"SavePauses", errors.New("disk full"), unsaved},
		"there is no folder":     {"LoadPauses", ErrNoFolder, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, w := newFolder().failing(c.method, c.err), newWorld(t)
				p := begin(w, block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
				p.gateOf("a").Pause(time.Minute)
				if c.logs == "" {
					w.mustNotLog(lost)
					w.mustNotLog(unsaved)
				} else {
					w.mustLog(c.logs, c.err.Error())
				}
				if got := len(f.paused()); got != 0 && c.logs != lost {
					t.Errorf("got %d pauses saved, want none", got)
				}
			})
		})
	}
}

// TestWithoutAUnitAPauseIsItsGates, and ends with it.
func TestWithoutAUnitAPauseIsItsGates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin(newWorld(t), block("a", "unix:/a"))
		p.gateOf("a").Pause(time.Hour)
		p.mustReload(block("a", "unix:/a", "max_conns = 7"))
		if got := p.gateOf("a"); got.pausedFor() != time.Hour || got.last().MaxConns != 7 {
			t.Errorf("got a pause of %v and %d conns after a reload, want both", got.pausedFor(), got.last().MaxConns)
		}
		p.mustReload(block("a", "unix:/b"))
		if got := p.gateOf("a").pausedFor(); got != 0 {
			t.Errorf("got a pause of %v for another gate", got)
		}
		p.signal(syscall.SIGTERM)
	})
}
