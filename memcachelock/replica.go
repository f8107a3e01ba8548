package memcachelock

import (
	"errors"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// replica is the item of a lease on one server. It is in the hands of the holder of the ticket.
type replica struct {
	lease  *lease
	member *member
	ours   bool
	lost   bool   // when it was released, another gate may have had it
	casID  uint64 // 0: not known, or it was gone

	// What a wait has seen of the lock before. With a vote for us, seen is free for us to replace.
	looked bool
	vote   vote
	seen   *item
}

func (r *replica) failed(err error) answer {
	if errors.Is(err, errForgot) {
		return answer{vote: voteNo} // it will know us again after the grace
	}
	return answer{vote: voteFailed, err: err}
}

// takeOrLeave takes the item. If the lease is not won it is given back, in the background.
func (r *replica) takeOrLeave(t *ticket) answer {
	if !t.waitUntil(r.lease.until) {
		return answer{vote: voteFailed, err: errBusy} // with our own release
	}
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
	if r.looked && r.vote != voteYes || r.member.inGrace() {
		return answer{vote: voteNo}
	}
	asked := time.Now()
	items, err := r.write(r.member.takes, r.seen, r.lease.until)
	switch {
	case err == nil:
		known := r.learn(items, asked)
		r.ours = r.casID != 0
		if !r.ours || !known || r.member.inGrace() {
			return answer{vote: voteNo} // which was too early: it will be given back
		}
		return answer{vote: voteYes}
	case answered(err):
		return answer{vote: voteNo, found: items}
	}
	if !skipped(err) {
		r.member.inDoubt(r.lease)
	}
	return r.failed(err)
}

// write writes the item in the place of old, nil if there is none, and reads what there is then.
func (r *replica) write(on *lane, old *item, until time.Time) (items map[string]*item, err error) {
	items, err = r.writeOnce(on, old, until)
	if err != nil && !answered(err) {
		return r.confirm(on, err, until)
	}
	return items, err
}

func (r *replica) writeOnce(on *lane, old *item, until time.Time) (items map[string]*item, err error) {
	l := r.lease
	it := &item{name: l.name, value: l.value, seconds: l.store.seconds}
	if old != nil {
		it.casID = old.casID
	}
	return r.member.take(on, until, it, l.names)
}

// confirm finds out what became of a write whose answer was lost. A server that timed out is not asked again.
func (r *replica) confirm(on *lane, err error, until time.Time) (map[string]*item, error) {
	if skipped(err) || timedOut(err) {
		return nil, err
	}
	r.member.counts.lostAnswers.Add(1)
	l := r.lease
	var items map[string]*item
	getErr := on.atOnce(until, func(c *wire) (err error) {
		items, err = c.get(l.names...)
		return err
	})
	switch it := items[l.name]; {
	case getErr != nil:
		return nil, errors.Join(err, getErr)
	case sameValue(it, l.value):
		return items, nil
	case it == nil:
		return r.writeOnce(on, nil, until)
	}
	return items, errNotStored
}

// learn notes the CAS id, which the release needs, and which gates wait for the lock. It reports whether the server has
// the epoch that we know.
func (r *replica) learn(items map[string]*item, asked time.Time) (known bool) {
	l := r.lease
	r.casID = 0
	if it := items[l.name]; sameValue(it, l.value) {
		r.casID = it.casID
	}
	if r.member == l.store.lineMember(l.key) {
		l.waiters(parseLine(items[l.names[1]]))
	}
	return r.member.knows(items[l.names[2]], asked)
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
	it, err := r.member.touches.touch(l.name, l.store.seconds)
	switch {
	case errors.Is(err, errMissing):
		return r.addAgain()
	case err != nil:
		return answer{vote: voteFailed, err: err}
	case !sameValue(it, l.value):
		r.ours = false
		return answer{vote: voteNo}
	}
	r.ours = true
	return answer{vote: voteYes}
}

// addAgain adds an item that is missing. Only right after a loss of all is it certain that no gate had it in between;
// and an item that was never there cannot be missing.
func (r *replica) addAgain() answer {
	l := r.lease
	if l.isReleased() {
		return answer{vote: voteNo}
	}
	sure := !r.ours || r.member.justLost()
	r.casID = 0
	asked := time.Now()
	items, err := r.write(r.member.takes, nil, asked.Add(l.store.options.Timeout))
	switch {
	case err == nil:
		_ = r.learn(items, asked) // if it is gone again, the next renewal will find out
		r.ours = true
		r.member.counts.regained.Add(1)
		if sure {
			l.store.tell(Event{Kind: LeaseRegained, Server: r.member.addr, Key: l.key})
		} else {
			l.foundMissing(r.member)
		}
		return answer{vote: voteYes}
	case !answered(err):
		if !skipped(err) {
			r.member.inDoubt(l)
		}
		return answer{vote: voteFailed, err: err}
	}
	return r.renewFound()
}

// renewFound reports by its vote whether the item that is there already is ours.
func (r *replica) renewFound() answer {
	items, err := r.member.get(r.member.renewals, r.lease.name)
	if err != nil {
		return answer{vote: voteFailed, err: err}
	}
	it := items[r.lease.name]
	if r.ours = sameValue(it, r.lease.value); !r.ours {
		return answer{vote: voteNo, gone: it == nil}
	}
	r.casID = it.casID
	return answer{vote: voteYes}
}

// release deletes the item, or keeps the lock for next, and reports whether it did that. If the server cannot be asked,
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
		r.member.inDoubt(r.lease)
		return false
	}
	return next != (manager{})
}

// remove gives back what was taken in vain.
func (r *replica) remove() { r.release(manager{}) }

// free is an atomic compare-and-delete, or compare-and-swap. Another gate's item is never touched: the error is ErrLost
// then, or if the item was gone: it is unknown which gate had the lock meanwhile.
func (r *replica) free(next manager) error {
	l, m := r.lease, r.member
	for range 2 {
		if r.casID == 0 {
			items, err := m.get(m.releases, l.name)
			if err != nil {
				return err
			}
			it := items[l.name]
			if !sameValue(it, l.value) {
				return sessionlock.ErrLost
			}
			r.casID = it.casID
		}
		it := &item{name: l.name, seconds: deleteNow, casID: r.casID}
		if next != (manager{}) {
			it.value, it.seconds = turnValue(next), turnSeconds
		}
		err := m.write(m.releases, it)
		switch {
		case err == nil:
			return nil
		case answered(err):
			return sessionlock.ErrLost
		case timedOut(err) || skipped(err):
			return err
		}
		r.casID = 0 // the answer was lost: ask
	}
	return errors.New("no answer to a release")
}

// addAgain adds the item of l to m, where it belongs: in any case, or only if the server has not got it so far. That it
// is another gate's shows at its next renewal.
func (l *lease) addAgain(m *member, all bool) {
	for _, r := range l.replicas {
		if r.member != m {
			continue
		}
		t := m.newTicket(l.key)
		t.wait()
		if !all && r.ours {
			t.leave()
			continue
		}
		a := r.addAgain()
		t.leave()
		if a.vote == voteFailed || a.vote == voteNo && m.inGrace() && !l.isReleased() {
			// A gate that was there before us may have been too early, and give it back.
			m.restoreAll.Store(true)
		}
	}
}

var _ sessionlock.Lease = (*lease)(nil)
