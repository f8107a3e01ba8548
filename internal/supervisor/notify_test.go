package supervisor

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// TestSystemdIsNotified of each change, in order.
func TestSystemdIsNotified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a"))
		p.mustReload(block("a", "unix:/a") + block("b", "unix:/b"))
		w.failing("Load", errors.New("unreadable"))
		w.failing("Notify", errors.New("no socket"))
		p.signal(syscall.SIGHUP)
		p.signal(syscall.SIGTERM)
		got := w.notified()
		want := []string{
			"READY=1\nSTATUS=gates: 1, connections: 1",
			"RELOADING=1\nMONOTONIC_USEC=", "READY=1\nSTATUS=gates: 2, connections: 2",
			"RELOADING=1\nMONOTONIC_USEC=", "READY=1\nSTATUS=gates: 2, connections: 2; config file invalid, still serving the previous one",
			"STOPPING=1\nSTATUS=draining",
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) || !strings.HasPrefix(got[i], want[i]) {
				t.Fatalf("got the states %q, want %q", got, want)
			}
		}
		w.mustLog("sd_notify failed", "no socket")
	})
}

// TestTheWatchdogIsFedWhileTheProcessIsWell, also while it drains.
func TestTheWatchdogIsFedWhileTheProcessIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a")+block("b", "unix:/b"), with(nil, 3*time.Second))
		fed := func() int { return strings.Count(strings.Join(w.notified(), "\n"), "WATCHDOG=1\nSTATUS=gates: ") }
		time.Sleep(3500 * time.Millisecond)
		if got := fed(); got != 3 {
			t.Errorf("got %d pings in three and a half seconds, want 3", got)
		}
		broken := errors.New("too many open files")
		p.gateOf("a").fail(broken)
		time.Sleep(3 * time.Second)
		if got := fed(); got != 3 || !errors.Is(p.health(), broken) {
			t.Errorf("got %d pings, health %v, with a gate that has stopped, want no more", got, p.health())
		}
		mustBe(t, "what is open", w.isOpen(), "unix:/b")
		w.mustLog("gate ended", "gate=a", "stopped accepting: too many open files", "health check failed, withholding the watchdog ping")
		p.mustReload(block("a", "unix:/a") + block("b", "unix:/b"))
		mustBe(t, "gates", p.servedGates(), "a=2/1 b=1/2")
		mustBe(t, "what is open after a reload", w.isOpen(), "unix:/a, unix:/b")
		r := p.gateOf("b").begin()
		p.signal(syscall.SIGTERM)
		time.Sleep(3 * time.Second)
		if got := fed(); got != 6 || p.health() != nil {
			t.Errorf("got %d pings, health %v, after a reload and while draining, want 6", got, p.health())
		}
		r.end()
		if ended, err := p.hasEnded(); !ended || err != nil {
			t.Errorf("got ended %v, %v, want an end", ended, err)
		}
		time.Sleep(time.Minute)
		if got := fed(); got != 6 {
			t.Errorf("got %d pings after the end, want 6", got)
		}
	})
}

// TestAGateThatHasStoppedCanBeRemoved: the process is well then.
func TestAGateThatHasStoppedCanBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := begin(w, block("a", "unix:/a", watched)+block("b", "unix:/b"))
		p.gateOf("a").fail(errors.New("broken"))
		synctest.Wait()
		if p.health() == nil {
			t.Fatal("a process with a gate that has stopped is said to be well")
		}
		p.mustReload(block("b", "unix:/b"))
		mustBe(t, "what is open", w.isOpen(), "unix:/b")
		if err := p.health(); err != nil {
			t.Error(err)
		}
	})
}

// TestHealthLeavesNothingBehind, and does not mind another check at the same time.
func TestHealthLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := begin(newWorld(t), block("a", "unix:/a"))
		other, err := p.State().Local.Acquire(t.Context(), watchdogKey, watchdog{}, sessionlock.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.health(); err != nil {
			t.Errorf("got %v with another check at the same time", err)
		}
		other.Release()
		if err := p.health(); err != nil {
			t.Error(err)
		}
		if got := p.State().Local.Snapshot(); len(got) > 0 {
			t.Errorf("the watchdog has left %v", got)
		}
	})
}
