package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// counted is a server that has nothing and counts what it is asked.
type counted struct {
	Server
	figures Figures

	mu     sync.Mutex
	state  State
	trips  int
	polled int
	wrote  []*Item
}

func (c *counted) Count(change func(*ServerStats)) { c.figures.Count(change) }

func (c *counted) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *counted) set(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

// asked is how many round trips and looks there were.
func (c *counted) asked() (trips, polled int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trips, c.polled
}

func (c *counted) Poll(lists [][]string, _ []string, _ time.Duration) ([][]*Item, error) {
	time.Sleep(time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trips++
	c.polled += len(lists)
	found := make([][]*Item, len(lists))
	for i, names := range lists {
		found[i] = make([]*Item, len(names))
	}
	return found, nil
}

func (c *counted) WriteAll(items []*Item) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrote = append(c.wrote, items...)
	return nil
}

// eager wants to be looked at again at once, and writes once.
type eager struct {
	name   string
	poller *Poller

	mu                        sync.Mutex
	looks, graces, downs, own int
}

// seen is what a looker was notified of.
func (e *eager) seen() (looks, graces, downs, wrote int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.looks, e.graces, e.downs, e.own
}

func (e *eager) Look() ([]string, string) { return []string{e.name}, "" }

func (e *eager) Found(items []*Item, err error) *Item {
	e.mu.Lock()
	defer e.mu.Unlock()
	if errors.Is(err, ErrGrace) {
		e.graces++
		e.poller.Put(e, e.poller.server.State().GraceEnds)
		return nil
	}
	e.looks++
	e.poller.Put(e, time.Now())
	if len(items) == 1 && e.looks == 1 {
		return &Item{Name: e.name}
	}
	return nil
}

func (e *eager) Wrote() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own++
}

func (e *eager) ServerDown() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.downs++
}

// run has n lookers be polled on each of the servers, all at one pace, for a while.
func run(t *testing.T, servers []*counted, n, rate int, meanwhile func(all []*eager)) {
	ctx, cancel := context.WithCancel(context.Background())
	var pollers sync.WaitGroup
	pace := NewPace(rate)
	var all []*eager
	for _, s := range servers {
		p := NewPoller(s, pace, time.Second)
		for i := range n {
			e := &eager{name: fmt.Sprint(i), poller: p}
			all = append(all, e)
			p.Put(e, time.Now())
		}
		pollers.Go(func() { p.Run(ctx) })
	}
	meanwhile(all)
	cancel()
	pollers.Wait()
}

// However many want to be looked at on however many servers, the pace is for all together, no looker is left out,
// and many looks share a round trip.
func TestPollersKeepTheirPaceTogether(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 10, 1000} {
		synctest.Test(t, func(t *testing.T) {
			const rate, seconds = 2000, 10
			servers := []*counted{new(counted), new(counted), new(counted)}
			run(t, servers, n, rate, func(all []*eager) {
				time.Sleep(seconds * time.Second)
				polled, trips := 0, 0
				for _, s := range servers {
					t, p := s.asked()
					trips, polled = trips+t, polled+p
				}
				if polled > rate*seconds+1 || n > 1 && polled < rate*seconds*9/10 {
					t.Errorf("%d lookers on each server: %d looks in %d s, want %d", n, polled, seconds, rate*seconds)
				}
				if n == 1000 && trips > polled/5 {
					t.Errorf("%d looks took %d round trips, want many in one", polled, trips)
				}
				least, most := polled, 0
				for _, e := range all {
					looks, _, _, wrote := e.seen()
					least, most = min(least, looks), max(most, looks)
					if wrote != 1 {
						t.Errorf("a looker's item was written %d times, want once", wrote)
					}
				}
				if most > 2*least {
					t.Errorf("%d lookers on each server: one had %d looks and another %d", n, most, least)
				}
			})
		})
	}
}

// Nothing is asked of a server in its grace, or one that is down, and lookers are notified of both.
func TestAPollerSparesAServerThatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := new(counted)
		s.set(State{GraceEnds: time.Now().Add(time.Second)})
		run(t, []*counted{s}, 3, 1000, func(all []*eager) {
			trips := func() int { n, _ := s.asked(); return n }
			time.Sleep(900 * time.Millisecond)
			if _, graces, _, _ := all[0].seen(); trips() != 0 || graces != 1 {
				t.Errorf("%d round trips in a grace, of which a looker was notified %d times, want 0 and 1", trips(), graces)
			}
			time.Sleep(time.Second)
			if trips() == 0 {
				t.Error("nothing was asked after the grace")
			}
			s.set(State{Down: ErrNotSent})
			time.Sleep(100 * time.Millisecond)
			before := trips()
			time.Sleep(time.Second)
			_, _, downs, _ := all[0].seen()
			if trips() != before || downs < 9 {
				t.Errorf("%d round trips to a server that is down, of which a looker was notified %d times in a second",
					trips()-before, downs)
			}
			all[0].poller.Remove(all[0])
			synctest.Wait() // for one that was under way
			_, _, downs, _ = all[0].seen()
			time.Sleep(time.Second)
			if _, _, after, _ := all[0].seen(); after != downs {
				t.Error("a looker that was removed is notified")
			}
			s.set(State{})
			time.Sleep(time.Second)
			if trips() == before {
				t.Error("nothing was asked after the server was back")
			}
		})
	})
}
