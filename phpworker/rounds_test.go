package phpworker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// countedLooks counts looks, and the moments at which any were taken.
type countedLooks struct {
	mu     sync.Mutex
	counts []int
	wakes  map[time.Time]bool
}

// look returns one more look to be taken, which costs as much.
func (c *countedLooks) look(cost int) *repeatedLook {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.counts)
	c.counts = append(c.counts, 0)
	if c.wakes == nil {
		c.wakes = make(map[time.Time]bool)
	}
	return &repeatedLook{take: func(time.Time) (int, bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts[n]++
		c.wakes[time.Now()] = true
		return cost, false
	}}
}

// over counts anew for a time, and returns how often each look was taken, in how many rounds.
func (c *countedLooks) over(d time.Duration) (counts []int, rounds int) {
	c.mu.Lock()
	clear(c.counts)
	clear(c.wakes)
	c.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.counts), len(c.wakes)
}

// count takes n looks for a minute of a clock of their own, and returns how often each was, in how many rounds.
func count(t *testing.T, n, cost int, pause time.Duration) (counts []int, rounded int) {
	synctest.Test(t, func(t *testing.T) {
		var c countedLooks
		r := rounds{clock: newTimerAlarm}
		for range n {
			time.Sleep(time.Millisecond) // they do not begin together
			l := c.look(cost)
			l.pause = pause
			r.add(l)
		}
		c.over(10 * time.Second) // they are of a long script after that
		counts, rounded = c.over(time.Minute)
		end(&r)
	})
	return counts, rounded
}

// end ends all looks, and waits until nothing runs.
func end(r *rounds) {
	r.mu.Lock()
	looks := slices.Clone(r.looks)
	r.mu.Unlock()
	for _, l := range looks {
		r.remove(l)
	}
	time.Sleep(time.Second)
}

// TestLooksShareTheirRounds: however many there are, the process wakes up as often as for one, all are taken equally
// often, and together they cost no more than they may.
func TestLooksShareTheirRounds(t *testing.T) {
	for name, tt := range map[string]struct {
		n, cost int
		pause   time.Duration
		want    time.Duration // between two looks
	}{
		"one":                               {1, signCost, 0, maxLookPause},
		"a hundred":                         {100, signCost, 0, maxLookPause},
		"a hundred whose processes run":     {100, readCost, 0, 2 * maxLookPause},
		"a hundred through an older helper": {100, helperCost, 0, 8 * maxLookPause},
		"a thousand":                        {1000, signCost, 0, 8 * maxLookPause},
		"one with a longer pause":           {1, signCost, 30 * time.Millisecond, 2 * maxLookPause},
	} {
		t.Run(name, func(t *testing.T) {
			counts, rounds := count(t, tt.n, tt.cost, tt.pause)
			want, total := int(time.Minute/tt.want), 0
			for i, looks := range counts {
				if looks < want-1 || looks > want+1 {
					t.Fatalf("look %d was taken %d times in a minute, want %d", i, looks, want)
				}
				total += looks * tt.cost
			}
			if rounds > want+1 {
				t.Errorf("%d rounds for %d looks of each", rounds, want)
			}
			if most := maxLookCost * 60; total > most {
				t.Errorf("they cost %d, want %d at most", total, most)
			}
		})
	}
}

// TestAYoungScriptIsLookedAtOften, also while others are looked at more rarely, and in their rounds.
func TestAYoungScriptIsLookedAtOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rounds{clock: newTimerAlarm}
		var c countedLooks
		r.add(c.look(signCost))
		c.over(10 * time.Second)
		r.add(c.look(signCost))
		const watched = 200 * time.Millisecond
		counts, rounds := c.over(watched)
		want := int(watched / minLookPause)
		if young := counts[1]; young < want-1 || young > want+1 || rounds > want+1 {
			t.Errorf("it was looked at %d times in %d rounds, want %d", young, rounds, want)
		}
		end(&r)
	})
}

// TestRoundsEnd with the last look, and begin again with the next: synctest reports a goroutine that is left.
func TestRoundsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rounds{clock: newTimerAlarm}
		for range 3 {
			left := 5
			err := r.await(t.Context(), 0, func(time.Time) (int, bool) {
				left--
				return signCost, left == 0
			})
			if err != nil || left != 0 {
				t.Errorf("got %v, with %d looks left", err, left)
			}
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := r.await(ctx, 0, func(time.Time) (int, bool) { return signCost, false })
		if err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.alarm != nil || r.looks != nil {
			t.Errorf("%d looks go on", len(r.looks))
		}
	})
}

// TestAProcessThatHasNotRunIsNotRead, but for once a second; one that has run is read at each look, and so is one whose
// time is not known.
func TestAProcessThatHasNotRunIsNotRead(t *testing.T) {
	const looks = 1000
	for name, tt := range map[string]struct {
		sign func(look int) (int64, bool)
		want int // reads
	}{
		"it sleeps":              {func(int) (int64, bool) { return 7, true }, 1 + looks*16/1024},
		"it has not run at all":  {func(int) (int64, bool) { return 0, true }, 1 + looks*16/1024},
		"it runs":                {func(look int) (int64, bool) { return int64(look), true }, looks},
		"it ran once":            {func(look int) (int64, bool) { return int64(look / 500), true }, 2 + looks*16/1024},
		"its time is not known":  {func(int) (int64, bool) { return 0, false }, looks},
		"not known now and then": {func(look int) (int64, bool) { return 7, look%2 == 0 }, looks},
	} {
		t.Run(name, func(t *testing.T) {
			look, signs, reads := 0, 0, 0
			l := signedLook{
				sign: func() (int64, bool) {
					signs++
					return tt.sign(look)
				},
				changed: func() bool {
					reads++
					return false
				},
			}
			cost := 0
			for now := begun; look < looks; look++ {
				c, last := l.take(now)
				if last {
					t.Fatal("it has changed")
				}
				cost += c
				now = now.Add(maxLookPause)
			}
			if reads < tt.want-1 || reads > tt.want+1 || signs != looks {
				t.Errorf("%d reads and %d signs in %d looks, want %d reads", reads, signs, looks, tt.want)
			}
			if want := looks + reads*(readCost-signCost); cost != want {
				t.Errorf("they cost %d, want %d", cost, want)
			}
		})
	}
}

// TestTheSignIsTakenBeforeTheMemoryIsRead: what a process does after that changes it.
func TestTheSignIsTakenBeforeTheMemoryIsRead(t *testing.T) {
	ran, open := int64(1), true
	l := signedLook{sign: func() (int64, bool) { return ran, true }}
	l.changed = func() bool {
		seen := open
		if ran == 1 { // it closes its session as soon as that was read
			ran, open = 2, false
		}
		return !seen
	}
	for n, want := range []bool{false, true} {
		if _, got := l.take(begun); got != want {
			t.Errorf("look %d: got %v, want %v", n, got, want)
		}
	}
}
