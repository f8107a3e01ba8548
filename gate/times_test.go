package gate

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestAClockTellsTheStagesApart, those of a request whose lock ended while it waited for a connection.
func TestAClockTellsTheStagesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		var seen []Times
		look := func() time.Duration {
			return c.look(10*time.Second, func(s stage, t Times) {
				if s != stagePHP {
					t = Times{}
				}
				seen = append(seen, t)
			})
		}
		time.Sleep(time.Minute) // its head
		var lefts []time.Duration
		for _, step := range []struct {
			stage
			time.Duration
		}{
			{stageSession, time.Second}, {stageConnection, 2 * time.Second}, {stageSession, time.Second},
			{stageConnection, time.Second}, {stageOther, time.Hour}, {stagePHP, 3 * time.Second}, {stagePHP, 4 * time.Second},
		} {
			c.enter(step.stage)
			time.Sleep(step.Duration)
			lefts = append(lefts, look())
		}
		got := c.stop()
		want := Times{Session: 2 * time.Second, Connection: 3 * time.Second, PHP: 7 * time.Second, Queued: true, Sent: true}
		if got != want || got.Total() != 12*time.Second {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if want := []time.Duration{9e9, 7e9, 6e9, 5e9, 5e9, 2e9, 0}; !slices.Equal(lefts, want) {
			t.Errorf("got %v left after the steps, want %v", lefts, want)
		}
		if len(seen) != 1 || seen[0] != want {
			t.Errorf("seen at %+v, want once, at %+v", seen, want)
		}
		if left := look(); left != 0 || len(seen) != 1 {
			t.Error("it is seen after its end")
		}
	})
}

func TestARequestThatDidNotGetThereHasNoTimeInPHP(t *testing.T) {
	var c clock
	c.enter(stageSession)
	if got := c.stop(); got.Queued || got.Sent || got.Connection != 0 || got.PHP != 0 {
		t.Errorf("got %+v", got)
	}
}

// BenchmarkClock is what telling the stages apart costs a request that has a session, in its way, with an alarm for the
// slow ones.
func BenchmarkClock(b *testing.B) {
	a, r := new(alarm), &request{setup: &setup{Options: Options{SlowRequest: time.Hour}}}
	b.ReportAllocs()
	for b.Loop() {
		r.clock = clock{}
		a.watch(r)
		for _, s := range []stage{stageSession, stageConnection, stagePHP, stagePHP, stagePHP} {
			r.clock.enter(s)
		}
		_ = r.clock.waited()
		_ = r.clock.stop()
		a.leave()
	}
}
