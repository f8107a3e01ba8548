package memcachelock

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// pace spreads the looks of all pollers of a store, so that there are never more in a second than there may be.
type pace struct {
	every time.Duration // between two

	mu   sync.Mutex
	next time.Time
}

// reserve returns when n looks may begin.
func (p *pace) reserve(n int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(time.Duration(n) * p.every)
	return at
}

// poller looks at the locks on one server that the store waits for: at many in one round trip. One that is due for
// longer goes first.
type poller struct {
	member *member
	kick   chan struct{} // receives when there is something earlier to do

	mu   sync.Mutex
	due  views
	busy time.Duration // how long the last round took
}

const (
	maxRound   = 400 // looks in one round trip
	maxNames   = 100 // looks in one command
	roundPause = time.Millisecond
)

func newPoller(m *member) *poller { return &poller{member: m, kick: make(chan struct{}, 1)} }

// put has v looked at again at the given time.
func (p *poller) put(v *view, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v.at = at
	if v.index < 0 {
		heap.Push(&p.due, v)
	} else {
		heap.Fix(&p.due, v.index)
	}
	if v.index == 0 {
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
}

func (p *poller) remove(v *view) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.index >= 0 {
		heap.Remove(&p.due, v.index)
	}
}

// run looks until ctx is done.
func (p *poller) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := heartbeat
		if p.member.isUp() {
			pause = p.round(ctx)
		} else {
			p.awaitServer()
		}
		if sleep(ctx, roundPause, nil) {
			sleep(ctx, pause-roundPause, p.kick)
		}
	}
}

// sleep sleeps for d or until it is kicked, and reports whether to go on.
func sleep(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// awaitServer wakes the waits that need not be waited for any longer, while the server is down.
func (p *poller) awaitServer() {
	p.mu.Lock()
	all := slices.Clone(p.due)
	p.mu.Unlock()
	for _, v := range all {
		w := v.wait
		if w.store.isAwayFor(w.key, w) {
			w.mu.Lock()
			if !w.over {
				w.wake()
			}
			w.mu.Unlock()
		}
	}
}

// round looks at what is due, and returns the pause until the next is.
func (p *poller) round(ctx context.Context) time.Duration {
	batch, pause := p.next()
	if len(batch) == 0 {
		return pause
	}
	if !sleep(ctx, time.Until(p.member.store.pace.reserve(len(batch))), nil) {
		return 0
	}
	begun := time.Now()
	p.look(batch)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = time.Since(begun)
	return 0
}

// idlePause is when a poller with nothing to do looks up; it is kicked before.
const idlePause = time.Minute

// next takes the views that are due. Without any it returns the time until one is.
func (p *poller) next() (batch []*view, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	every := p.member.store.pace.every
	most := min(max(1, int(max(10*time.Millisecond, p.busy)/every)), maxRound)
	soon := now.Add(roundPause / 2)
	for len(p.due) > 0 && len(batch) < most && !p.due[0].at.After(soon) {
		batch = append(batch, heap.Pop(&p.due).(*view))
	}
	if len(p.due) == 0 {
		return batch, idlePause
	}
	return batch, max(0, p.due[0].at.Sub(now))
}

// look looks at the locks of a batch, joins the lines of those that are still held, and has the rest decided.
func (p *poller) look(batch []*view) {
	m, asked := p.member, time.Now()
	if m.inGrace() {
		p.postpone(batch, m.graceEnds())
		return
	}
	lists, touch := p.names(batch)
	var items map[string]*item
	err := m.polls.inTurn(true, func(c *wire) (err error) {
		items, err = c.poll(lists, touch, lineSeconds)
		return err
	})
	m.counts.polled.Add(uint64(len(batch)))
	known := err == nil && m.knows(items[m.options.epoch], asked)
	var joins []*join
	for _, v := range batch {
		w := v.wait
		w.mu.Lock()
		switch {
		case w.over:
		case err != nil:
			v.looked = false
			p.put(v, time.Now().Add(maxPoll))
		case !known:
			v.looked, v.vote = true, voteNo
			w.schedule()
		default:
			v.see(items)
			w.judge()
			if j := v.joins(); j != nil {
				joins = append(joins, j)
			}
		}
		w.mu.Unlock()
	}
	p.join(joins)
}

func (p *poller) postpone(batch []*view, until time.Time) {
	for _, v := range batch {
		v.wait.mu.Lock()
		if !v.wait.over && !v.wait.askable {
			p.put(v, until)
		}
		v.wait.mu.Unlock()
	}
}

// names are those of the items to read for a batch, the epoch among them, and of the lines to live on.
func (p *poller) names(batch []*view) (lists [][]string, touch []string) {
	names := []string{p.member.options.epoch}
	for i, v := range batch {
		w := v.wait
		names = append(names, w.lock, w.line)
		if (i+1)%maxNames == 0 {
			lists, names = append(lists, names), nil
		}
		w.mu.Lock()
		if w.inLine && p.member == w.store.lineMember(w.key) && time.Since(w.refreshed) >= lineRefresh {
			w.refreshed = time.Now()
			touch = append(touch, w.line)
		}
		w.mu.Unlock()
	}
	if len(names) > 0 {
		lists = append(lists, names)
	}
	return lists, touch
}

// views is a heap of those that are to be looked at, the first one first.
type views []*view

func (h views) Len() int           { return len(h) }
func (h views) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h views) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }

// Push is heap.Push's.
func (h *views) Push(x any) {
	v := x.(*view)
	v.index = len(*h)
	*h = append(*h, v)
}

// Pop is heap.Pop's.
func (h *views) Pop() any {
	last := len(*h) - 1
	v := (*h)[last]
	v.index = -1
	(*h)[last] = nil
	*h = (*h)[:last]
	return v
}
