package demo

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// crowd is the other visitors. They come at fixed intervals, whether the earlier ones have their answers or not, and
// request a page that needs no session.
type crowd struct {
	someone *visitor // they all share a client, so that most find a kept connection
	stop    context.CancelFunc
	coming  sync.WaitGroup

	mu     sync.Mutex
	visits []visit
}

// visit is one visit of a crowd.
type visit struct {
	at     time.Time     // when it was due
	took   time.Duration // since then
	status int           // 0: no answer
}

// startCrowd starts a crowd, which comes until depart. Visitors still waiting when ctx ends close their connections.
func startCrowd(ctx context.Context, sd *side, every time.Duration) *crowd {
	c := &crowd{someone: &visitor{site: sd.url, client: newClient()}}
	c.start(ctx, every)
	return c
}

func (c *crowd) start(ctx context.Context, every time.Duration) {
	come, stop := context.WithCancel(ctx)
	c.stop = stop
	c.coming.Go(func() { c.come(ctx, come, every) })
}

func (c *crowd) come(ctx, come context.Context, every time.Duration) {
	for due := time.Now(); ; due = due.Add(every) {
		pause(come, time.Until(due))
		if come.Err() != nil {
			return
		}
		c.coming.Go(func() { c.visit(ctx, due) })
	}
}

func (c *crowd) visit(ctx context.Context, due time.Time) {
	a := c.someone.get(ctx, helloPage)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.visits = append(c.visits, visit{due, time.Since(due), a.status})
}

// depart ends the visits, and returns when all have their answers.
func (c *crowd) depart() {
	c.stop()
	c.coming.Wait()
	c.someone.leave()
}

// between returns the visits that were due from from until to.
func (c *crowd) between(from, to time.Time) []visit {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []visit
	for _, v := range c.visits {
		if !v.at.Before(from) && v.at.Before(to) {
			found = append(found, v)
		}
	}
	return found
}

// sumUp summarizes visits. Failed ones count with the time that they took.
func sumUp(visits []visit) (l Latency, failed int) {
	var took []time.Duration
	for _, v := range visits {
		took = append(took, v.took)
		if v.status != http.StatusOK {
			failed++
		}
	}
	return latency(took), failed
}
