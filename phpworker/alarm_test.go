package phpworker

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAlarmsGoOff at what was set last, be it sooner or later than what was set before, and each time anew.
func TestAlarmsGoOff(t *testing.T) {
	kernels := newAlarm()
	if _, ok := kernels.(*kernelAlarm); !ok {
		t.Error("the kernel has no alarm")
	}
	for name, a := range map[string]alarm{"the kernel's": kernels, "the runtime's": newTimerAlarm()} {
		t.Run(name, func(t *testing.T) {
			defer a.close()
			for _, sets := range [][]time.Duration{
				{0}, {-time.Second}, {time.Millisecond}, {time.Hour, time.Millisecond}, {0, 50 * time.Millisecond},
			} {
				began := time.Now()
				woken := make(chan struct{})
				go func() {
					defer close(woken)
					a.wait()
				}()
				for _, after := range sets {
					a.set(after)
				}
				<-woken
				if len(sets) == 1 && time.Since(began) < sets[0] {
					t.Errorf("set to %v: it has gone off after %v", sets, time.Since(began))
				}
			}
		})
	}
}

// TestRoundsLeaveNoFileOpen once there is nothing to look at.
func TestRoundsLeaveNoFileOpen(t *testing.T) {
	timers := func() (n int) {
		files, _ := filepath.Glob("/proc/self/fd/*")
		for _, file := range files {
			if to, _ := os.Readlink(file); to == "anon_inode:[timerfd]" {
				n++
			}
		}
		return n
	}
	for timers() != 0 { // of other tests
		time.Sleep(time.Millisecond)
	}
	var r rounds
	look := 0
	for range 3 {
		err := r.await(t.Context(), 0, func(time.Time) (int, bool) {
			if look++; timers() != 1 {
				t.Errorf("%d timers are open", timers())
			}
			return signCost, look%2 == 0
		})
		if err != nil {
			t.Error(err)
		}
		for timers() != 0 {
			time.Sleep(time.Millisecond)
		}
	}
}
