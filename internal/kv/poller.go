package kv

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// Looker is something that a Poller looks at again and again. Its methods are called one at a time, and must not block
// for long.
type Looker interface {
	// Look returns the names of the items to read, and of one to live on with this look, "" for none.
	Look() (names []string, touch string)

	// Found gets what was found, or why nothing was: ErrGrace if the server was not asked, ErrEpoch if it may have lost
	// its items. It may return an item to be written, or nil. The next look has to be put to the poller.
	Found(items []*Item, err error) *Item

	// Wrote is called when the item that Found has returned was written, or not: the next look shows.
	Wrote()

	// ServerDown is called from time to time while the server is down and a look is due some time.
	ServerDown()
}

// Pace spreads the looks of several pollers, so that there are never more in a second than there may be.
type Pace struct {
	every time.Duration // between two

	mu   sync.Mutex
	next time.Time
}

// NewPace makes a pace of so many looks in a second.
func NewPace(rate int) *Pace { return &Pace{every: max(1, time.Second/time.Duration(rate))} }

// Every is the time between two looks.
func (p *Pace) Every() time.Duration { return p.every }

// reserve returns when n looks may begin.
func (p *Pace) reserve(n int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(time.Duration(n) * p.every)
	return at
}

// Poller looks at items on one server: for many lookers in one round trip. One that is due for longer goes first.
type Poller struct {
	server Server
	pace   *Pace
	ttl    time.Duration // of what is touched
	kick   chan struct{} // receives when there is something earlier to do

	mu      sync.Mutex
	due     looks
	lookers map[Looker]*look // those that are due
	busy    time.Duration    // how long the last round took
}

const (
	maxRound   = 400 // looks in one round trip
	roundPause = time.Millisecond
	downPause  = 100 * time.Millisecond // between two looks at a server that is down
	idlePause  = time.Minute            // when a poller with nothing to do looks up; it is kicked before
)

// NewPoller makes a poller of server. What its lookers touch lives for ttl.
func NewPoller(server Server, pace *Pace, ttl time.Duration) *Poller {
	return &Poller{
		server: server, pace: pace, ttl: ttl,
		kick: make(chan struct{}, 1), lookers: make(map[Looker]*look),
	}
}

// Put has l looked at once, at the given time, instead of when it was to be before.
func (p *Poller) Put(l Looker, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.lookers[l]
	if k == nil {
		k = &look{Looker: l, at: at}
		p.lookers[l] = k
		heap.Push(&p.due, k)
	} else {
		k.at = at
		heap.Fix(&p.due, k.index)
	}
	if k.index == 0 {
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
}

// Remove ends the looks at l. One may be under way.
func (p *Poller) Remove(l Looker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.lookers[l]; k != nil {
		delete(p.lookers, l)
		heap.Remove(&p.due, k.index)
	}
}

// Run looks until ctx is done.
func (p *Poller) Run(ctx context.Context) {
	for ctx.Err() == nil {
		pause := downPause
		if p.server.State().Down == nil {
			pause = p.round(ctx)
		} else {
			p.serverDown()
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

func (p *Poller) serverDown() {
	p.mu.Lock()
	all := slices.Clone(p.due)
	p.mu.Unlock()
	for _, k := range all {
		k.ServerDown()
	}
}

// round looks at what is due, and returns the pause until the next is.
func (p *Poller) round(ctx context.Context) time.Duration {
	batch, pause := p.next()
	if len(batch) == 0 {
		return pause
	}
	if !sleep(ctx, time.Until(p.pace.reserve(len(batch))), nil) {
		return 0
	}
	begun := time.Now()
	p.look(batch)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = time.Since(begun)
	return 0
}

// next takes the looks that are due. Without any it returns the time until one is.
func (p *Poller) next() (batch []*look, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	most := min(max(1, int(max(10*time.Millisecond, p.busy)/p.pace.every)), maxRound)
	soon := now.Add(roundPause / 2)
	for len(p.due) > 0 && len(batch) < most && !p.due[0].at.After(soon) {
		k := heap.Pop(&p.due).(*look)
		delete(p.lookers, k.Looker)
		batch = append(batch, k)
	}
	if len(p.due) == 0 {
		return batch, idlePause
	}
	return batch, max(0, p.due[0].at.Sub(now))
}

// look looks for all of a batch, and writes what they want written.
func (p *Poller) look(batch []*look) {
	if !p.server.State().Granting() {
		for _, k := range batch {
			k.Found(nil, ErrGrace)
		}
		return
	}
	lists := make([][]string, len(batch))
	var touch []string
	for i, k := range batch {
		var live string
		if lists[i], live = k.Look(); live != "" {
			touch = append(touch, live)
		}
	}
	found, err := p.server.Poll(lists, touch, p.ttl)
	p.server.Count(func(s *ServerStats) { s.Looks += uint64(len(batch)) })
	var write []*Item
	var writers []*look
	for i, k := range batch {
		var items []*Item
		if err == nil {
			items = found[i]
		}
		if it := k.Found(items, err); it != nil {
			write, writers = append(write, it), append(writers, k)
		}
	}
	if len(write) == 0 {
		return
	}
	_ = p.server.WriteAll(write)
	for _, k := range writers {
		k.Wrote()
	}
}

// look is when to look at a looker.
type look struct {
	Looker
	at    time.Time
	index int // in the heap
}

// looks is a heap of those that are due, the first one first.
type looks []*look

func (h looks) Len() int           { return len(h) }
func (h looks) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h looks) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }

// Push is heap.Push's.
func (h *looks) Push(x any) {
	k := x.(*look)
	k.index = len(*h)
	*h = append(*h, k)
}

// Pop is heap.Pop's.
func (h *looks) Pop() any {
	last := len(*h) - 1
	k := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return k
}
