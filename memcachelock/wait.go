package memcachelock

import (
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
