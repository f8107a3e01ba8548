package admin

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// BenchmarkMeter is what measuring costs a request that has a session, in its way: a wait, a hold and its times.
func BenchmarkMeter(b *testing.B) {
	m := newStand(b).Meters("www")("")
	script := []byte("/srv/www/public/index.php")
	times := gate.Times{Connection: time.Millisecond, PHP: 20 * time.Millisecond, Queued: true, Sent: true}
	for name, behind := range map[string]sessionlock.Description{"a free lock": {}, "behind another": {Gate: "www", Script: "/srv/www/public/with/a/long/name/export.php"}} {
		waited := time.Duration(0)
		if behind.Gate != "" {
			waited = 30 * time.Millisecond
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Waited(gate.OutcomeHeld, waited, &behind)
				m.Held(gate.HoldReleased, 20*time.Millisecond, script)
				m.Ended(gate.OutcomeHeld, &times, script)
			}
		})
	}
}

func TestMeasuringTakesNoMemory(t *testing.T) {
	m := newStand(t).Meters("www")("api")
	script := []byte("/srv/www/public/index.php")
	behind := sessionlock.Description{Gate: "www", Script: "/srv/www/public/with/a/long/name/export.php"}
	times := gate.Times{Connection: time.Millisecond, PHP: 20 * time.Millisecond, Queued: true, Sent: true}
	measure := func() {
		m.Waited(gate.OutcomeHeld, 30*time.Millisecond, &behind)
		m.Held(gate.HoldReleased, 20*time.Millisecond, script)
		m.Ended(gate.OutcomeHeld, &times, script)
	}
	measure()
	if got := testing.AllocsPerRun(1000, measure); got >= 1 { // the next minute's map, once in all those runs
		t.Errorf("got %v allocations for a request, want none", got)
	}
}

// BenchmarkLocks is one look at 10,000 waiters of one session, as an event takes it.
func BenchmarkLocks(b *testing.B) {
	s := newStand(b)
	s.hold(keys[0], "/export.php")
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 10_000 {
		all.Go(func() {
			_, _ = s.locks.Acquire(ctx, keys[0], requestFor("/poll.php"), sessionlock.Policy{MaxWait: time.Hour})
		})
	}
	await(b, "all wait", func() bool { return s.waiting() == 10_000 })
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(s.Admin.locks.page(ctx)); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	all.Wait()
}
