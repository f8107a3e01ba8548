package supervisor

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

var someKey = sessionlock.Key{1}

// acquire acquires the lock of someKey in a process.
func acquire(t *testing.T, p *process) *sessionlock.Lock {
	t.Helper()
	l, err := p.State().Local.Acquire(context.Background(), someKey, watchdog{}, sessionlock.Policy{MaxWait: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// leaving begins a process of a unit that is restarted, and has it hand over while it has a request.
func leaving(t *testing.T, f *folder) (*process, *fakeUnit, *fakeRequest) {
	t.Helper()
	u := &fakeUnit{folder: f, restarted: true}
	p := begin(newWorld(t), block("a", "systemd:a")+operatorsAt("unix:/o"), with(u, 0))
	r := p.gateOf("a").begin()
	p.signal(syscall.SIGTERM)
	time.Sleep(2 * shortDrain)
	synctest.Wait()
	return p, u, r
}

// TestAHandOver: the next process starts while this one still has a request, whose lock it holds.
func TestAHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder()
		u := &fakeUnit{folder: f, restarted: true}
		old := begin(newWorld(t), block("a", "systemd:a")+operatorsAt("unix:/o"), with(u, 0))
		lock, r := acquire(t, old), old.gateOf("a").begin()
		old.signal(syscall.SIGTERM)
		time.Sleep(shortDrain - time.Nanosecond)
		synctest.Wait()
		if u.released.Load() || u.asked.Load() > 0 {
			t.Error("the process has handed over before its requests had time to end")
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if !u.released.Load() {
			t.Fatalf("the process has not handed over\n%s", old.w.lines.String())
		}
		mustBe(t, "what is open", old.w.isOpen(), "")
		old.w.mustLog("handing over to the next process")

		next := begin(newWorld(t), block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
		next.w.mustLog("the previous process still serves requests, its locks are taken over", "locks=1", "listening")
		if !next.State().Previous || old.State().Previous {
			t.Errorf("got previous %v and %v, want that of the next only", next.State().Previous, old.State().Previous)
		}
		got := make(chan *sessionlock.Lock)
		go func() { got <- acquire(t, next) }()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("both processes have the lock")
		default:
		}
		lock.Release()
		(<-got).Release()
		r.end()
		if ended, err := old.hasEnded(); !ended || err != nil || next.State().Previous {
			t.Errorf("got ended %v, %v and previous %v, want an end of the old process", ended, err, next.State().Previous)
		}
	})
}

// TestAHandOverWaitsUntilNoGateAccepts, so that a web server reaches one process only.
func TestAHandOverWaitsUntilNoGateAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUnit{folder: newFolder(), restarted: true}
		p := begin(newWorld(t), block("a", "systemd:a")+block("b", "systemd:b"), with(u, 0))
		r := p.gateOf("a").begin()
		p.gateOf("b").slow = time.Second
		p.signal(syscall.SIGTERM)
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		if u.released.Load() {
			t.Errorf("the process has handed over while %s is open", p.w.isOpen())
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if !u.released.Load() {
			t.Error("the process has not handed over when no gate accepts")
		}
		r.end()
	})
}

// TestNoHandOver: the process stays the unit's until its last request has ended.
func TestNoHandOver(t *testing.T) {
	cannot := errors.New("there is no way")
	for name, c := range map[string]struct {
		restarted bool
		fails     string
		after     time.Duration // that the request ends
		asked     int32
		warns     bool
	}{
		"requests end soon":       {true, "", shortDrain / 2, 0, false},
		"the unit is stopped":     {false, "", time.Second, 1, false},
		"systemd does not answer": {true, "Restarts", time.Second, 1, true},
		"no place to listen":      {true, "ListenForSuccessor", time.Second, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &fakeUnit{folder: newFolder().failing(c.fails, cannot), restarted: c.restarted}
				w := newWorld(t)
				p := begin(w, block("a", "systemd:a")+operatorsAt("unix:/o"), with(u, 0))
				r := p.gateOf("a").begin()
				p.signal(syscall.SIGTERM)
				time.Sleep(c.after)
				synctest.Wait()
				mustBe(t, "what is open", w.isOpen(), "unix:/o")
				r.end()
				if ended, err := p.hasEnded(); !ended || err != nil || u.released.Load() || u.asked.Load() != c.asked {
					t.Errorf("got ended %v, %v, released %v and asked %d times, want %d", ended, err, u.released.Load(), u.asked.Load(), c.asked)
				}
				w.mustNotLog("handing over")
				if c.warns {
					w.mustLog("cannot hand over, the next process starts when all requests are done", cannot.Error())
				} else {
					w.mustNotLog("cannot hand over")
				}
			})
		})
	}
}

// TestAMainProcessThatCannotBeReleased is logged, and the requests are served.
func TestAMainProcessThatCannotBeReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, r := leaving(t, newFolder().failing("Release", errors.New("broken pipe")))
		p.w.mustLog("handing over", "cannot hand over", "broken pipe")
		r.end()
		if ended, err := p.hasEnded(); !ended || err != nil {
			t.Errorf("got ended %v, %v, want an end", ended, err)
		}
	})
}

// predecessor has a process offer its locks, and end after a while or with the test.
func predecessor(t *testing.T, f *folder, says string, ends time.Duration) {
	l, over := newPipes(), make(chan struct{})
	f.listener = l
	go func() {
		nc, _ := l.Accept()
		_, _ = nc.Write([]byte(says + "\n"))
		select {
		case <-time.After(ends):
		case <-over:
		}
		nc.Close()
	}()
	t.Cleanup(func() { close(over) })
}

// TestAProcessWithoutItsPredecessorServes, and logs why it could not take over.
func TestAProcessWithoutItsPredecessorServes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		logs string
	}{
		"no folder":     {ErrNoFolder, "[WARN]  locks cannot be taken over"},
		"no connection": {errors.New("permission denied"), "[ERROR] locks of the previous process cannot be taken over"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, block("a", "systemd:a"), with(&fakeUnit{folder: newFolder().failing("DialPredecessor", c.err)}, 0))
				w.mustLog(c.logs, c.err.Error(), "listening")
				if p.State().Previous || p.servedGates() != "a=0/1" {
					t.Errorf("got %+v, want a gate and no previous process", p.State())
				}
			})
		})
	}
	for name, answer := range map[string]string{"nonsense": "x", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, w := newFolder(), newWorld(t)
				predecessor(t, f, answer, time.Hour)
				p := begin(w, block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
				w.mustLog("[ERROR] locks of the previous process cannot be taken over", "listening")
				if p.State().Previous {
					t.Error("a previous process that cannot be understood is said to serve")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		begin(w, block("a", "systemd:a"), with(&fakeUnit{folder: newFolder()}, 0))
		w.mustNotLog("previous")
	})
}

// TestLocksOfThePredecessorThatAreLost are logged, and those that end with it are not.
func TestLocksOfThePredecessorThatAreLost(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		lost bool
	}{
		"its end":  {`{"kind":"complete"}`, false},
		"nonsense": {`{"kind":"complete"} x`, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, w := newFolder(), newWorld(t)
				predecessor(t, f, c.says, time.Second)
				p := begin(w, block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if p.State().Previous {
					t.Error("a process that has gone is said to serve")
				}
				if lost := "[ERROR] locks of the previous process are lost"; c.lost {
					w.mustLog("its locks are taken over", lost)
				} else {
					w.mustNotLog(lost)
				}
			})
		})
	}
}

// TestAProcessWaitsForItsPredecessor before it ends, as the next one does not know that: but no longer than a drain.
func TestAProcessWaitsForItsPredecessor(t *testing.T) {
	for name, c := range map[string]struct {
		ends  time.Duration // the first process
		after time.Duration // the second ends
	}{
		"that ends":       {time.Second, time.Second},
		"that ends late":  {drainTimeout + time.Second, drainTimeout + time.Second},
		"that never ends": {time.Hour, drainTimeout + DrainGrace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFolder()
				predecessor(t, f, `{"kind":"complete"}`, c.ends)
				second := begin(newWorld(t), block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
				begun := time.Now()
				second.signal(syscall.SIGTERM)
				if err := <-second.result; err != nil {
					t.Error(err)
				}
				if got := time.Since(begun); got != c.after {
					t.Errorf("the process has ended after %v, want %v", got, c.after)
				}
				second.result <- nil
			})
		})
	}
}

// TestAProcessThatHasHandedOver leaves all to the next that systemd and operators know.
func TestAProcessThatHasHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUnit{folder: newFolder(), restarted: true}
		w := newWorld(t)
		p := begin(w, block("a", "systemd:a")+operatorsAt("unix:/o"), with(u, time.Second), func(o *Options) { o.DrainTimeout = time.Minute })
		r := p.gateOf("a").begin()
		time.Sleep(time.Second)
		p.signal(syscall.SIGTERM)
		time.Sleep(2 * shortDrain)
		synctest.Wait()
		mustBe(t, "what is open", w.isOpen(), "")
		states := len(w.notified())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.notified(); len(got) != states {
			t.Errorf("systemd was notified of %q after the hand-over", got[states:])
		}
		r.end()
		if ended, err := p.hasEnded(); !ended || err != nil || w.hasExited() {
			t.Errorf("got ended %v, %v, exited %v, want an end", ended, err, w.hasExited())
		}
	})
}

// TestAProcessThatDoesNotEndExits, once it has handed over: it is in no one's hands.
func TestAProcessThatDoesNotEndExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder()
		p, _, r := leaving(t, f)
		time.Sleep(drainTimeout + DrainGrace + time.Second)
		synctest.Wait()
		if ended, err := p.hasEnded(); !ended || err == nil || p.w.hasExited() {
			t.Errorf("got ended %v, %v, exited %v, want a request that was broken off", ended, err, p.w.hasExited())
		}
		r.end()
	})
	synctest.Test(t, func(t *testing.T) {
		u := &fakeUnit{folder: newFolder(), restarted: true}
		w := newWorld(t)
		p := begin(w, block("a", "systemd:a"), with(u, 0))
		g := p.gateOf("a")
		g.stuck = make(chan struct{})
		p.signal(syscall.SIGTERM)
		time.Sleep(shortDrain + drainTimeout + DrainGrace + overdue - time.Nanosecond)
		synctest.Wait()
		if w.hasExited() {
			t.Error("the process has exited before its time is over")
		}
		time.Sleep(time.Millisecond) // it has waited for the listeners
		synctest.Wait()
		if !w.hasExited() {
			t.Error("the process has not exited")
		}
		w.mustLog("this process should have ended, exiting immediately")
		close(g.stuck)
	})
}

// TestAThirdProcess: two restarts in a row, while the first process still has a request.
func TestAThirdProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder()
		u := &fakeUnit{folder: f, restarted: true}
		first := begin(newWorld(t), block("a", "systemd:a"), with(u, 0))
		lock, r := acquire(t, first), first.gateOf("a").begin()
		first.signal(syscall.SIGTERM)
		time.Sleep(2 * shortDrain)
		second, _, none := leaving(t, f)
		none.end()
		if ended, _ := second.hasEnded(); ended {
			t.Fatal("the second process has ended before the first, whose locks it holds")
		}
		third := begin(newWorld(t), block("a", "systemd:a"), with(&fakeUnit{folder: f}, 0))
		got := make(chan *sessionlock.Lock, 1)
		go func() { got <- acquire(t, third) }()
		time.Sleep(time.Second)
		if len(got) > 0 {
			t.Error("the first and the third process have the lock")
		}
		lock.Release()
		(<-got).Release()
		r.end()
		for n, p := range []*process{first, second} {
			if ended, err := p.hasEnded(); !ended || err != nil {
				t.Errorf("process %d: got ended %v, %v, want an end", n+1, ended, err)
			}
		}
	})
}
