package phpworker

import (
	"context"
	"slices"
	"sync"
	"time"
)

// rounds takes looks at many workers, round by round, in one goroutine that runs while there are any. The looks of a
// round share one wake-up of the process, which costs as much as dozens of them. The zero value is ready.
type rounds struct {
	mu    sync.Mutex
	looks []*repeatedLook
	alarm alarm        // for the next round; nil: no goroutine runs
	clock func() alarm // newAlarm if nil
}

// takeFunc looks once. It returns what that has cost, in units of the cheapest look, and whether it was the last one.
type takeFunc func(now time.Time) (cost int, last bool)

// repeatedLook is a look that is taken again and again.
type repeatedLook struct {
	take  takeFunc
	pause time.Duration // between two looks, at the least

	// Of the look that is being taken.
	spent int
	ended bool

	// Guarded by the mutex of rounds.
	since time.Time
	due   time.Time
	cost  int // of the latest look
	over  bool
}

const (
	minLookPause = 2 * time.Millisecond
	maxLookPause = 16 * time.Millisecond
	lookPart     = 128
	// maxLookCost bounds what the looks of a second cost together. They become rarer, all alike.
	maxLookCost = 12000
)

// LookPause returns the pause between two looks at a script that has run for age: a part of that, from 2 to 16 ms.
func LookPause(age time.Duration) time.Duration {
	return min(max(age/lookPart, minLookPause), maxLookPause)
}

// What looks cost: a unit is a look that finds that the process has not run. Reading its memory takes about five times
// as long, but counts as three, because it happens only to processes that use the CPU themselves. A round trip to a
// helper takes much longer.
const (
	signCost   = 1
	readCost   = 3
	helperCost = 12
)

// await has looks taken until one of them is the last, or ctx ends.
func (r *rounds) await(ctx context.Context, pause time.Duration, take takeFunc) error {
	over := make(chan struct{})
	l := &repeatedLook{pause: pause}
	l.take = func(now time.Time) (int, bool) {
		cost, last := take(now)
		if last {
			close(over)
		}
		return cost, last
	}
	r.add(l)
	defer r.remove(l)
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add has a look taken until it says that it was the last one, or remove.
func (r *rounds) add(l *repeatedLook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	l.since, l.cost = now, signCost
	r.looks = append(r.looks, l)
	l.due = dueAfter(now, max(l.pause, minLookPause, r.load()))
	if r.alarm == nil {
		if r.clock == nil {
			r.clock = newAlarm
		}
		r.alarm = r.clock()
		go r.run(r.alarm)
	}
	r.alarm.set(0) // for a round that finds when the next one is to be
}

// remove ends a look. It may be taken once more meanwhile.
func (r *rounds) remove(l *repeatedLook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.over = true
}

// run takes the looks that are due, until there are none.
func (r *rounds) run(a alarm) {
	defer a.close()
	var due []*repeatedLook
	for {
		a.wait()
		if !r.round(time.Now(), &due) {
			return
		}
	}
}

// round takes the looks that are due, and sets the alarm for the next. It reports whether there are any. It uses the
// space of due.
func (r *rounds) round(now time.Time, due *[]*repeatedLook) bool {
	*due = r.due(now, (*due)[:0])
	for _, l := range *due {
		l.spent, l.ended = l.take(now)
	}
	more := r.plan(now, *due)
	clear(*due)
	return more
}

// due appends the looks whose time has come.
func (r *rounds) due(now time.Time, due []*repeatedLook) []*repeatedLook {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks = slices.DeleteFunc(r.looks, func(l *repeatedLook) bool { return l.over })
	for _, l := range r.looks {
		if !l.due.After(now) {
			due = append(due, l)
		}
	}
	return due
}

// plan says when the looks that were taken are taken again, and sets the alarm for the next one of all. It reports
// whether there is any: if not, nothing may call round any longer.
func (r *rounds) plan(now time.Time, taken []*repeatedLook) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range taken {
		l.cost, l.over = l.spent, l.over || l.ended
	}
	load := r.load()
	for _, l := range taken {
		l.due = dueAfter(now, max(l.pauseAt(now), load))
	}
	var next time.Time
	for _, l := range r.looks {
		if !l.over && (next.IsZero() || l.due.Before(next)) {
			next = l.due
		}
	}
	if next.IsZero() {
		r.looks, r.alarm = nil, nil
		return false
	}
	r.alarm.set(time.Until(next))
	return true
}

// load is the pause with which all looks together keep within their bound.
func (r *rounds) load() time.Duration {
	cost := 0
	for _, l := range r.looks {
		if !l.over {
			cost += l.cost
		}
	}
	return time.Duration(cost) * time.Second / maxLookCost
}

// pauseAt is the pause after a look at the time now, as far as it alone is concerned.
func (l *repeatedLook) pauseAt(now time.Time) time.Duration {
	return max(l.pause, LookPause(now.Sub(l.since)))
}

// begun is what the moments of all looks are counted from: the clock of the system may be set.
var begun = time.Now()

// dueAfter is the moment for a look after a pause. Pauses are lengthened to 2, 4, 8 ms and so on, and end at multiples
// of that, so that each round of a long pause is one of the shorter ones, too.
func dueAfter(now time.Time, pause time.Duration) time.Time {
	tick := minLookPause
	for tick < pause {
		tick *= 2
	}
	beyond := now.Sub(begun) % tick
	if beyond < 0 {
		beyond += tick
	}
	return now.Add(tick - beyond)
}
