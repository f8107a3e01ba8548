package gate

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAClockTellsTheStagesApart, those of a request whose lock ended while it waited for a connection.
func TestAClockTellsTheStagesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		rings := 0
		var seen Times
		var at stage
		c.alarmAt(10*time.Second, func() {
			rings++
			c.look(10*time.Second, func(s stage, t Times) { at, seen = s, t })
		})
		time.Sleep(time.Minute) // its head
		for _, step := range []struct {
			stage
			time.Duration
		}{
			{stageSession, time.Second}, {stageConnection, 2 * time.Second}, {stageSession, time.Second},
			{stageConnection, time.Second}, {stageOther, time.Hour}, {stagePHP, 3 * time.Second}, {stagePHP, 4 * time.Second},
		} {
			c.enter(step.stage)
			time.Sleep(step.Duration)
			synctest.Wait()
		}
		got := c.stop()
		want := Times{Session: 2 * time.Second, Connection: 3 * time.Second, PHP: 7 * time.Second, Queued: true, Sent: true}
		if got != want || got.Total() != 12*time.Second {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if at != stagePHP || seen.Total() < 10*time.Second || seen.Total() > 11*time.Second || rings > 1000 {
			t.Errorf("seen in stage %v at %+v after %d looks, want after 10s in PHP", at, seen, rings)
		}
		before := rings
		time.Sleep(time.Hour)
		if rings != before {
			t.Error("the alarm went off after the end")
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
	for b.Loop() {
		c := new(clock)
		c.alarmAt(5*time.Second, func() {})
		for _, s := range []stage{stageSession, stageConnection, stagePHP, stagePHP, stagePHP} {
			c.enter(s)
		}
		_ = c.waited()
		_ = c.stop()
	}
}
