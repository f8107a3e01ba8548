package memcachelock

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// wait is the state of a manager between the first answer to its Acquire and the lease: its place in the line, and what
// was last seen of the lock. The pollers of the lock's servers look after it, and say when it is worth asking again.
type wait struct {
	waitKey
	store *Store
	lock  string // its name
	line  string
	ready chan struct{} // receives when the manager should ask again

	mu        sync.Mutex
	views     []*view // of the lock's servers, in their order
	askable   bool    // ready has been sent to; no look is needed
	over      bool    // the manager has the lease, or no longer waits
	deferred  bool    // others were let go first, once
	inLine    bool    // or on the way there
	refreshed time.Time
	holder    string    // the value of the lock when it was last looked at; "": it was free
	held      time.Time // since when that was seen
	seenHeld  time.Time // when the lock was last seen to be another manager's; zero: never
}

type waitKey struct {
	key     sessionlock.Key
	manager manager
}

// view is what a wait has last seen of its lock on one server, and when to look again.
type view struct {
	wait   *wait
	member *member
	vote   vote // voteYes: the lock is there for us to take
	looked bool // else nothing is known of the server
	lock   *item
	queue  *item

	at    time.Time // when to look again
	index int       // in the poller's heap; −1: it is not there
}

func (s *Store) waitOf(key sessionlock.Key, token sessionlock.Token) *wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits[waitKey{key, manager(token.Manager())}]
}

// beginWait makes the wait of l, which could not be had, with what was seen by trying.
func (s *Store) beginWait(l *lease) *wait {
	now := time.Now()
	w := &wait{
		waitKey: waitKey{l.key, manager(l.token.Manager())}, store: s, lock: l.name, line: s.lineName(l.key),
		ready: make(chan struct{}, 1), held: now,
	}
	for _, r := range l.replicas {
		w.views = append(w.views, &view{wait: w, member: r.member, index: -1})
	}
	s.mu.Lock()
	s.waits[w.waitKey] = w
	s.mu.Unlock()
	return w
}

// endWait ends w, if there is one: its manager has the lease or no longer waits. It reports whether it was in line.
func (s *Store) endWait(w *wait) (inLine bool) {
	if w == nil {
		return false
	}
	s.mu.Lock()
	if s.waits[w.waitKey] == w {
		delete(s.waits, w.waitKey)
	}
	s.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, v := range w.views {
		v.member.poller.remove(v)
	}
	return w.inLine
}

// takeReady reports whether it is worth asking again, and forgets it.
func (w *wait) takeReady() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.ready:
	default:
	}
	askable := w.askable
	w.askable = false
	return askable
}

// prepare tells the replicas of l what was seen of the lock.
func (w *wait) prepare(l *lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, r := range l.replicas {
		if v := w.views[i]; v.looked {
			r.looked, r.vote, r.seen = true, v.vote, v.lock
		}
	}
}

// again has the lock looked at again, after an attempt that did not lead to the lease and has found what is there.
func (w *wait) again(found []map[string]*item) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.deferred = false
	for i, v := range w.views {
		if v.looked = false; found[i] != nil {
			v.see(found[i])
		}
	}
	w.schedule()
}

// knowsHolder reports whether the lock was seen to be another manager's, and its lease may still live if nobody has
// been able to renew it since.
func (w *wait) knowsHolder(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seenHeld.IsZero() {
		return false
	}
	if since.Before(w.seenHeld) {
		since = w.seenHeld
	}
	return time.Since(since) < time.Duration(w.store.seconds)*time.Second
}

// wake has the manager ask again. It is called with the mutex held.
func (w *wait) wake() {
	w.askable = true
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// see notes what a server has answered. It is called with the mutex held, as all that follows.
func (v *view) see(items map[string]*item) {
	w := v.wait
	v.looked, v.vote, v.lock, v.queue = true, voteNo, items[w.lock], items[w.line]
	if v.lock == nil || w.isOurs(v.lock.value) {
		v.vote = voteYes
	} else {
		w.seenHeld = time.Now()
	}
	if v.member != w.store.lineMember(w.key) {
		return
	}
	value := ""
	if v.lock != nil {
		value = string(v.lock.value)
	}
	if value != w.holder {
		w.holder, w.held = value, time.Now()
	}
}

// isOurs reports whether the lock is kept for us, or has the token of an attempt of ours whose answer was lost.
func (w *wait) isOurs(value []byte) bool {
	if string(value) == string(turnValue(w.manager)) {
		return true
	}
	h, ok := parseHeld(value)
	return ok && manager(h.Token.Manager()) == w.manager && !w.store.has(w.key)
}

// judge decides what to do after a look: whether to ask, to be in the line, or to look again.
func (w *wait) judge() {
	if w.over || w.askable {
		return
	}
	votes := tally{most: majority(len(w.views)), rest: len(w.views)}
	free := false
	for _, v := range w.views {
		if v.looked {
			votes.count(answer{vote: v.vote})
			free = free || v.vote == voteYes && v.lock == nil
		}
	}
	switch {
	case votes.yes < votes.most:
		w.deferred = false
	case free && !w.first() && !w.deferred:
		w.deferred = true // the gate ahead of us in the line should have it, if it is still there
	default:
		w.wake()
		return
	}
	w.schedule()
}

// A gate that waits looks the more often the shorter the lock has been held for, as most scripts are short and a long
// one is not made longer by much. Only the first in the line is likely to get it: the others look more seldom.
const (
	pollShare  = 16 // of the time that the lock has been held for
	minPoll    = time.Millisecond
	maxPoll    = 6 * time.Millisecond // of the first in the line
	maxPollFar = 50 * time.Millisecond
	pollLimit  = 500 * time.Millisecond // so that a turn is seen before it ends
)

// schedule puts the views where their next look is due. A pause is shortened by up to half, as not all gates should
// come at once. Where many locks are waited for, those that have been held for long leave room for the others.
func (w *wait) schedule() {
	longest := min(max(maxPoll, w.store.fairPause()), pollLimit)
	pause := min(max(minPoll, time.Since(w.held)/pollShare), longest)
	if place := slices.Index(w.queue(), w.manager); place > 0 {
		pause = min(time.Duration(place+1)*pause, max(maxPollFar, longest))
	}
	at := time.Now().Add(pause/2 + rand.N(pause/2))
	for _, v := range w.views {
		v.member.poller.put(v, at)
	}
}

// fairPause is twice the pause with which all waits together would keep the poll rate.
func (s *Store) fairPause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 2 * time.Duration(len(s.waits)) * s.pace.every
}

// queue is the line, as far as it was seen.
func (w *wait) queue() []manager {
	m := w.store.lineMember(w.key)
	for _, v := range w.views {
		if v.member == m {
			return parseLine(v.queue)
		}
	}
	return nil
}

// first reports whether no other gate is ahead in the line.
func (w *wait) first() bool {
	line := w.queue()
	return len(line) == 0 || line[0] == w.manager
}

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
