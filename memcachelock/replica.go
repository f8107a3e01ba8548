package memcachelock

import (
	"bytes"
	"errors"
	"sync"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// replica is the item of a lease on one server. All but the look is in the hands of who has the ticket.
type replica struct {
	lease  *lease
	server *server
	ours   bool
	lost   bool   // when it was released, somebody else may have had it
	casID  uint64 // 0: not known, or it was gone

	// What the look before has seen; in the hands of Acquire.
	looked bool
	vote   vote
	seen   *memcache.Item
}

// look says yes if the lock is there for us to take: it is free, or kept for us, or a stray of ours.
func (r *replica) look(w *wait) answer {
	if r.server.inGrace() {
		return answer{vote: voteNo}
	}
	names := r.lease.names
	items, err := r.server.get(names...)
	if err != nil {
		return r.failed(err)
	}
	a := answer{vote: voteNo, seen: items[names[0]], line: items[names[1]]}
	if !r.server.knows(items[names[2]]) {
		return a
	}
	if a.seen == nil || r.isForUs(a.seen.Value, w.manager) {
		a.vote = voteYes
	}
	return a
}

// isForUs says whether the lock is kept for us, or has the token of a question of ours whose answer was lost.
func (r *replica) isForUs(value []byte, m manager) bool {
	if bytes.Equal(value, turnValue(m)) {
		return true
	}
	h, ok := parseHeld(value)
	return ok && manager(h.Token.Manager()) == m && !r.lease.store.has(r.lease.key)
}

func (r *replica) failed(err error) answer {
	if errors.Is(err, errForgot) {
		return answer{vote: voteNo} // it will know us again after the grace
	}
	return answer{vote: voteFailed, err: err}
}

// takeOrLeave takes the item. If the lease is not won it is given back, beside the request.
func (r *replica) takeOrLeave(t *ticket) answer {
	if t.isGiven() {
		t.leave()
		return answer{vote: voteNo}
	}
	a := r.take()
	if !r.ours {
		t.leave()
		return a
	}
	r.lease.store.background.Go(func() {
		defer t.leave()
		<-r.lease.decided
		if !r.lease.won || a.vote != voteYes {
			r.remove()
		}
	})
	return a
}

// take adds the item, or takes what is kept for us. If the answer is lost it asks before it believes anything; and it
// does not believe a server that was flushed: another gate may hold the lock, and not have added it again yet.
func (r *replica) take() answer {
	if r.looked && r.vote != voteYes || r.server.inGrace() {
		return answer{vote: voteNo}
	}
	items, err := r.write(r.seen)
	switch {
	case err == nil:
		known := r.learn(items)
		r.ours = r.casID != 0
		if !r.ours || !known || r.server.inGrace() {
			return answer{vote: voteNo} // which was too early: it will be given back
		}
		return answer{vote: voteYes}
	case answered(err):
		return answer{vote: voteNo}
	}
	if !unasked(err) {
		r.server.doubtful(r.lease)
	}
	return r.failed(err)
}

// write writes the item in the place of old, nil if there is none, and reads what there is then.
func (r *replica) write(old *memcache.Item) (items map[string]*memcache.Item, err error) {
	items, err = r.writeOnce(old)
	if err != nil && !answered(err) {
		return r.confirm(err)
	}
	return items, err
}

func (r *replica) writeOnce(old *memcache.Item) (items map[string]*memcache.Item, err error) {
	l := r.lease
	item := &memcache.Item{Key: l.name, Value: l.value, Expiration: l.store.seconds}
	if old != nil {
		item.CasID = old.CasID
	}
	return r.server.take(item, l.names)
}

// confirm finds out what became of a write whose answer was lost. A server that timed out is not asked again.
func (r *replica) confirm(err error) (map[string]*memcache.Item, error) {
	if unasked(err) || timedOut(err) {
		return nil, err
	}
	r.server.counts.lostAnswers.Add(1)
	l := r.lease
	items, getErr := r.server.get(l.names...)
	switch item := items[l.name]; {
	case getErr != nil:
		return nil, errors.Join(err, getErr)
	case sameValue(item, l.value):
		return items, nil
	case item == nil:
		return r.writeOnce(nil)
	}
	return nil, memcache.ErrNotStored
}

// learn notes the CAS id, which the release needs, and who waits for the lock. It says whether the server has the epoch
// that we know.
func (r *replica) learn(items map[string]*memcache.Item) (known bool) {
	l := r.lease
	r.casID = 0
	if item := items[l.name]; sameValue(item, l.value) {
		r.casID = item.CasID
	}
	if r.server == l.store.lineServer(l.key) {
		l.waiters(parseLine(items[l.names[1]]))
	}
	return r.server.knows(items[l.names[2]])
}

// renew makes the item live on, or adds it again.
func (r *replica) renew() answer {
	l := r.lease
	if l.isReleased() {
		return answer{vote: voteNo}
	}
	if !r.ours {
		// Touching the item would make another's live on, which may be what a dead gate has left.
		if a := r.renewFound(); a.vote != voteYes && !a.gone {
			return a
		}
	}
	item, err := r.server.getAndTouch(l.name, l.store.seconds)
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return r.addAgain()
	case err != nil:
		return answer{vote: voteFailed, err: err}
	case !sameValue(item, l.value):
		r.ours = false
		return answer{vote: voteNo}
	}
	r.ours = true
	return answer{vote: voteYes}
}

// addAgain adds the item of a lease that its server has lost.
func (r *replica) addAgain() answer {
	l := r.lease
	if l.isReleased() {
		return answer{vote: voteNo}
	}
	r.casID = 0
	items, err := r.write(nil)
	switch {
	case err == nil:
		_ = r.learn(items) // if it is gone again, the next renewal will tell
		r.ours = true
		r.server.counts.regained.Add(1)
		l.store.tell(Event{Kind: LeaseRegained, Server: r.server.addr, Key: l.key})
		return answer{vote: voteYes}
	case !answered(err):
		return answer{vote: voteFailed, err: err}
	}
	return r.renewFound()
}

// renewFound says whether the item that is there already is ours.
func (r *replica) renewFound() answer {
	items, err := r.server.get(r.lease.name)
	if err != nil {
		return answer{vote: voteFailed, err: err}
	}
	item := items[r.lease.name]
	if r.ours = sameValue(item, r.lease.value); !r.ours {
		return answer{vote: voteNo, gone: item == nil}
	}
	r.casID = item.CasID
	return answer{vote: voteYes}
}

// release deletes the item, or keeps the lock for next, and says whether it did that. If the server cannot be asked,
// its watcher will see to it.
func (r *replica) release(next manager) (given bool) {
	if !r.ours {
		return false
	}
	r.ours = false
	err := r.free(next)
	switch {
	case errors.Is(err, sessionlock.ErrLost):
		r.lost = true
		return false
	case err != nil:
		r.server.doubtful(r.lease)
		return false
	}
	return next != (manager{})
}

// remove gives back what was taken in vain.
func (r *replica) remove() { r.release(manager{}) }

// free is an atomic compare-and-delete, or compare-and-swap. That of somebody else is never touched: the error is
// ErrLost then, or if the item was gone: nobody can say who had the lock meanwhile.
func (r *replica) free(next manager) error {
	l := r.lease
	for range 2 {
		if r.casID == 0 {
			items, err := r.server.get(l.name)
			if err != nil {
				return err
			}
			item := items[l.name]
			if !sameValue(item, l.value) {
				return sessionlock.ErrLost
			}
			r.casID = item.CasID
		}
		value, seconds := []byte(nil), int32(deleteNow)
		if next != (manager{}) {
			value, seconds = turnValue(next), turnSeconds
		}
		err := r.server.compareAndSwap(l.name, value, seconds, r.casID)
		switch {
		case err == nil:
			return nil
		case answered(err):
			return sessionlock.ErrLost
		case timedOut(err) || unasked(err):
			return err
		}
		r.casID = 0 // the answer was lost: ask
	}
	return errors.New("no answer to a release")
}

// removeStray deletes the item if it is there and is no lease of ours any more. It says whether that is over: the
// item was there, and is not now.
func (r *replica) removeStray() (over bool, err error) {
	l := r.lease
	<-l.decided
	if l.won && !l.isReleased() {
		return false, errLive
	}
	items, err := r.server.get(l.name)
	if err != nil {
		return false, err
	}
	item := items[l.name]
	if !sameValue(item, l.value) {
		return false, nil
	}
	err = r.server.compareAndSwap(l.name, nil, deleteNow, item.CasID)
	return err == nil, err
}

var errLive = errors.New("the lease is held")

// addAgain adds the leases of ours that the server may have lost, if it is up and has lost them. Those that fail
// are left to the next heartbeat.
func (v *server) addAgain() {
	v.mu.Lock()
	lost := v.forgot && v.down == nil
	if lost {
		v.forgot = false
	}
	v.mu.Unlock()
	if lost {
		v.store.background.Go(func() { v.store.addAgain(v) })
	}
}

func (s *Store) addAgain(v *server) {
	s.mu.Lock()
	lost := make(chan *lease, len(s.leases))
	for _, l := range s.leases {
		lost <- l
	}
	s.mu.Unlock()
	close(lost)
	var all sync.WaitGroup
	for range min(len(lost), maxTakes/2) {
		all.Go(func() {
			for l := range lost {
				l.addAgain(v)
			}
		})
	}
	all.Wait()
}

// addAgain adds the item of l to v, where it belongs. That it is somebody else's is told at its next renewal.
func (l *lease) addAgain(v *server) {
	for _, r := range l.replicas {
		if r.server != v {
			continue
		}
		t := v.ticket(l.key)
		t.wait()
		a := r.addAgain()
		t.leave()
		if a.vote == voteFailed || a.vote == voteNo && v.inGrace() && !l.isReleased() {
			// Who was there before us may have been too early, and give it back.
			v.mu.Lock()
			v.forgot = true
			v.mu.Unlock()
		}
	}
}

var _ sessionlock.Lease = (*lease)(nil)
