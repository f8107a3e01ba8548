package sharedlock

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// waits are the waits of a store, one for each manager and lock that it waits for.
type waits struct {
	*cluster
	pace *kv.Pace
	has  func(sessionlock.Key) bool // reports whether this process has the lease of a lock

	mu  sync.Mutex
	all map[waitKey]*wait
}

type waitKey struct {
	key     sessionlock.Key
	manager manager
}

// wait is the state of a manager between the first answer to its Acquire and the lease: its place in the line, and what
// was last seen of the lock. The pollers of the lock's servers look after it, and say when it is worth asking again.
type wait struct {
	waitKey
	waits *waits
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

// view is what a wait has last seen of its lock on one server. It is looked at by the server's poller.
type view struct {
	wait   *wait
	member *member
	vote   vote // voteYes: the lock is there for us to take
	looked bool // else nothing is known of the server
	lock   *kv.Item
	queue  *kv.Item
}

// of returns the wait for key of the manager whose token that is, nil if there is none.
func (a *waits) of(key sessionlock.Key, token sessionlock.Token) *wait {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all[waitKey{key, manager(token.Manager())}]
}

// count is how many there are.
func (a *waits) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)
}

// begin makes the wait of l, which could not be had.
func (a *waits) begin(l *lease) *wait {
	w := &wait{
		waitKey: waitKey{l.key, manager(l.token.Manager())}, waits: a, lock: l.name, line: l.line,
		ready: make(chan struct{}, 1), held: time.Now(),
	}
	for _, r := range l.replicas {
		w.views = append(w.views, &view{wait: w, member: r.member})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[w.waitKey] = w
	return w
}

// end ends w, if there is one: its manager has the lease or no longer waits. It reports whether it was in line.
func (a *waits) end(w *wait) (inLine bool) {
	if w == nil {
		return false
	}
	a.mu.Lock()
	if a.all[w.waitKey] == w {
		delete(a.all, w.waitKey)
	}
	a.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, v := range w.views {
		v.member.poller.Remove(v)
	}
	return w.inLine
}

// isAwayFor reports whether so many servers of key are away that no majority can answer, and no other gate's lease is
// known, from the wait w if there is one, that may still live.
func (a *waits) isAwayFor(key sessionlock.Key, w *wait) bool {
	members := a.membersOf(key)
	away := 0
	var since time.Time
	for _, m := range members {
		if s := m.State(); s.Away {
			away++
			if s.Silent.After(since) {
				since = s.Silent
			}
		}
	}
	return away > len(members)-majority(len(members)) && (w == nil || !w.knowsHolder(since))
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

// lookAgain has the lock looked at again, after an attempt that did not lead to the lease and has found what is there.
func (w *wait) lookAgain(found [][]*kv.Item) {
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

// knowsHolder reports whether the lock was seen to be another manager's, whose lease may still live even if it has not
// been renewed since.
func (w *wait) knowsHolder(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seenHeld.IsZero() {
		return false
	}
	if since.Before(w.seenHeld) {
		since = w.seenHeld
	}
	return time.Since(since) < w.waits.options.Lease
}

// wake has the manager ask again. It is called with the mutex held.
func (w *wait) wake() {
	w.askable = true
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// Look names the lock and its line, and the line once more where it is time to make it live on.
func (v *view) Look() (names []string, touch string) {
	w := v.wait
	names = []string{w.lock, w.line}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inLine && v.member == w.waits.lineMember(w.key) && time.Since(w.refreshed) >= lineRefresh {
		w.refreshed = time.Now()
		return names, w.line
	}
	return names, ""
}

// Found notes what a look has found, decides what comes of it, and returns the line to be written if w has to join it.
func (v *view) Found(items []*kv.Item, err error) *kv.Item {
	w := v.wait
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
		return nil
	case errors.Is(err, kv.ErrGrace):
		if !w.askable {
			v.member.poller.Put(v, v.member.State().GraceEnds)
		}
		return nil
	case errors.Is(err, kv.ErrEpoch):
		v.looked, v.vote = true, voteNo
		w.schedule()
		return nil
	case err != nil:
		v.looked = false
		v.member.poller.Put(v, time.Now().Add(maxPoll))
		return nil
	}
	v.see(items)
	w.judge()
	return v.join()
}

// Wrote leaves the line again if the wait has ended before it has joined it.
func (v *view) Wrote() {
	w := v.wait
	w.mu.Lock()
	over := w.over
	w.mu.Unlock()
	if over {
		w.waits.leaveAndPassOn(w.key, w.manager)
	}
}

// ServerDown wakes a wait that need not be waited for any longer.
func (v *view) ServerDown() {
	w := v.wait
	if !w.waits.isAwayFor(w.key, w) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.wake()
	}
}

// see notes what a server has answered. It is called with the mutex held, as all that follows.
func (v *view) see(items []*kv.Item) {
	w := v.wait
	v.looked, v.vote, v.lock, v.queue = true, voteNo, items[0], items[1]
	if v.lock == nil || w.isOurs(v.lock.Value) {
		v.vote = voteYes
	} else {
		w.seenHeld = time.Now()
	}
	if v.member != w.waits.lineMember(w.key) {
		return
	}
	value := ""
	if v.lock != nil {
		value = string(v.lock.Value)
	}
	if value != w.holder {
		w.holder, w.held = value, time.Now()
	}
}

// join is how v's line is to be written so that the gate is in it, nil if there is nothing to do. One that another gate
// has written meanwhile is left to the next look.
func (v *view) join() *kv.Item {
	w := v.wait
	if w.over || w.askable || v.member != w.waits.lineMember(w.key) || !v.member.granting() {
		return nil
	}
	line := parseLine(v.queue)
	if slices.Contains(line, w.manager) || len(line) >= maxLine {
		return nil
	}
	w.inLine, w.refreshed = true, time.Now()
	return lineItem(w.line, v.queue, append(line, w.manager))
}

// isOurs reports whether the lock is kept for us, or has the token of an attempt of ours whose answer was lost.
func (w *wait) isOurs(value []byte) bool {
	if string(value) == string(turnValue(w.manager)) {
		return true
	}
	h, ok := parseHeld(value)
	return ok && manager(h.Token.Manager()) == w.manager && !w.waits.has(w.key)
}

// judge decides what to do after a look: whether to ask, to be in the line, or to look again.
func (w *wait) judge() {
	if w.over || w.askable {
		return
	}
	votes := votes{majority: majority(len(w.views)), pending: len(w.views)}
	free := false
	for _, v := range w.views {
		if v.looked {
			votes.count(answer{vote: v.vote})
			free = free || v.vote == voteYes && v.lock == nil
		}
	}
	switch {
	case votes.yes < votes.majority:
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
// one is not made longer by much. Only the first in the line is likely to get it: the others look less often.
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
	longest := min(max(maxPoll, w.waits.fairPause()), pollLimit)
	pause := min(max(minPoll, time.Since(w.held)/pollShare), longest)
	if place := slices.Index(w.queue(), w.manager); place > 0 {
		pause = min(time.Duration(place+1)*pause, max(maxPollFar, longest))
	}
	at := time.Now().Add(pause/2 + rand.N(pause/2))
	for _, v := range w.views {
		v.member.poller.Put(v, at)
	}
}

// fairPause is twice the pause with which all waits together would keep the poll rate.
func (a *waits) fairPause() time.Duration { return 2 * time.Duration(a.count()) * a.pace.Every() }

// queue is the line, as far as it was seen.
func (w *wait) queue() []manager {
	m := w.waits.lineMember(w.key)
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
