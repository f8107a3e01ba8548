package sharedlock

import (
	"errors"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// replica is the item of a lease on one server. It is in the hands of the holder of the ticket.
type replica struct {
	lease   *lease
	member  *member
	ours    bool   // the server has our item, as far as we know
	lost    bool   // when it was released, another gate may have had it
	version uint64 // of our item, for a compare-and-swap; 0: not known, or it was gone

	// What a wait has seen of the lock before. With a vote for us, seen is free for us to replace.
	looked bool
	vote   vote
	seen   *kv.Item
}

// failed is the answer of a server that has given none, or not one that counts.
func (r *replica) failed(err error) answer {
	if errors.Is(err, kv.ErrEpoch) {
		return answer{vote: voteNo} // it will know us again after the grace
	}
	return answer{vote: voteFailed, err: err}
}

// acquireOrLeave takes the item. If the lease is not won it is given back, in the background.
func (r *replica) acquireOrLeave(t *ticket) answer {
	if !t.waitUntil(r.lease.until) {
		return answer{vote: voteFailed, err: kv.ErrBusy} // with our own release
	}
	if t.isGiven() { // the release before us has kept the lock for another gate
		t.leave()
		return answer{vote: voteNo}
	}
	a := r.acquire()
	if !r.ours {
		t.leave()
		return a
	}
	// The ticket is kept until then: a later request for the lock must not meet an item that we are about to remove.
	r.lease.background.Go(func() {
		defer t.leave()
		<-r.lease.decided
		if !r.lease.won || a.vote != voteYes {
			r.remove()
		}
	})
	return a
}

// acquire adds the item, or takes what is kept for us. If the answer is lost it asks before it believes anything; and
// it does not believe a server that was flushed: another gate may hold the lock, and not have added it again yet.
func (r *replica) acquire() answer {
	if r.looked && r.vote != voteYes || !r.member.granting() {
		return answer{vote: voteNo}
	}
	items, known, err := r.write(r.seen, r.lease.until)
	switch {
	case err == nil:
		r.learn(items)
		r.ours = r.version != 0
		if !r.ours || !known || !r.member.granting() {
			return answer{vote: voteNo} // which was too early: it will be given back
		}
		return answer{vote: voteYes}
	case kv.Answered(err):
		return answer{vote: voteNo, found: items}
	}
	if !kv.NotSent(err) {
		r.member.inDoubt(r.lease.doubt())
	}
	return r.failed(err)
}

// write writes the item in the place of old, nil if there is none, and reads what there is then. known reports whether
// the server has the epoch that we know.
func (r *replica) write(old *kv.Item, until time.Time) (items []*kv.Item, known bool, err error) {
	items, err = r.writeOnce(old, until)
	if err != nil && !kv.Answered(err) && !errors.Is(err, kv.ErrEpoch) {
		items, err = r.confirm(err, until)
	}
	if items != nil && errors.Is(err, kv.ErrEpoch) { // it is there, and may be the first to be so
		return items, false, nil
	}
	return items, true, err
}

// writeOnce adds the item, or replaces old if that is still there unchanged, and reads what there is then.
func (r *replica) writeOnce(old *kv.Item, until time.Time) ([]*kv.Item, error) {
	l := r.lease
	it := &kv.Item{Name: l.name, Value: l.value, TTL: l.options.Lease}
	if old != nil {
		it.Version = old.Version
	}
	return r.member.Take(until, it, l.name, l.line)
}

// confirm finds out what became of a write whose answer was lost. A server that timed out is not asked again.
func (r *replica) confirm(err error, until time.Time) ([]*kv.Item, error) {
	if kv.NotSent(err) || kv.TimedOut(err) {
		return nil, err
	}
	r.member.Count(func(s *kv.ServerStats) { s.LostAnswers++ })
	l := r.lease
	items, checkErr := r.member.Check(until, l.name, l.line)
	switch {
	case items == nil:
		return nil, errors.Join(err, checkErr)
	case sameValue(items[0], l.value):
		return items, checkErr
	case items[0] == nil: // the write did not happen, or its item is gone again
		return r.writeOnce(nil, until)
	}
	return items, kv.ErrExists
}

// learn notes the version, which the release needs, and which gates wait for the lock.
func (r *replica) learn(items []*kv.Item) {
	l := r.lease
	r.version = 0
	if it := items[0]; sameValue(it, l.value) {
		r.version = it.Version
	}
	if r.member == l.lineMember(l.key) {
		l.waiters(parseLine(items[1]))
	}
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
	it, err := r.member.Touch(l.name, l.options.Lease)
	switch {
	case errors.Is(err, kv.ErrMissing):
		return r.reAdd()
	case err != nil:
		return answer{vote: voteFailed, err: err}
	case !sameValue(it, l.value): // another gate's, which we have made live on: not again, as ours is false now
		r.ours = false
		return answer{vote: voteNo}
	}
	r.ours = true
	return answer{vote: voteYes}
}

// reAdd adds an item that is missing. Only right after a loss of all is it certain that no gate had it in between;
// and an item that was never there cannot be missing.
func (r *replica) reAdd() answer {
	l := r.lease
	if l.isReleased() {
		return answer{vote: voteNo}
	}
	sure := !r.ours || r.member.State().JustLost
	r.version = 0
	items, _, err := r.write(nil, time.Now().Add(l.options.Timeout))
	switch {
	case err == nil:
		r.learn(items) // if it is gone again, the next renewal will find out
		r.ours = true
		r.member.Count(func(s *kv.ServerStats) { s.Regained++ })
		if sure {
			l.tell(Event{Kind: LeaseRegained, Server: r.member.Name(), Key: l.key})
		} else {
			l.foundMissing(r.member)
		}
		return answer{vote: voteYes}
	case !kv.Answered(err):
		if !kv.NotSent(err) {
			r.member.inDoubt(l.doubt())
		}
		return answer{vote: voteFailed, err: err}
	}
	return r.renewFound()
}

// renewFound reports by its vote whether the item that is there already is ours.
func (r *replica) renewFound() answer {
	items, err := r.member.Read(kv.LaneTouch, r.lease.name)
	if err != nil {
		return answer{vote: voteFailed, err: err}
	}
	it := items[0]
	if r.ours = sameValue(it, r.lease.value); !r.ours {
		return answer{vote: voteNo, gone: it == nil}
	}
	r.version = it.Version
	return answer{vote: voteYes}
}

// release deletes the item, or keeps the lock for next, and reports whether it did that. If the server cannot be asked,
// its watcher will see to it.
func (r *replica) release(next manager) (given bool) {
	if !r.ours {
		return false
	}
	r.ours = false // whatever comes of it: a lease is released once
	err := r.free(next)
	switch {
	case errors.Is(err, sessionlock.ErrLost):
		r.lost = true
		return false
	case err != nil:
		r.member.inDoubt(r.lease.doubt())
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
	for range 2 { // once more if the answer was lost and the item is still there
		if r.version == 0 {
			items, err := m.Read(kv.LaneWrite, l.name)
			if err != nil {
				return err
			}
			it := items[0]
			if !sameValue(it, l.value) {
				return sessionlock.ErrLost
			}
			r.version = it.Version
		}
		it := &kv.Item{Name: l.name, TTL: kv.Delete, Version: r.version}
		if next != (manager{}) {
			it.Value, it.TTL = turnValue(next), turnTTL
		}
		err := m.Write(it)
		switch {
		case err == nil:
			return nil
		case kv.Answered(err):
			return sessionlock.ErrLost
		case kv.TimedOut(err) || kv.NotSent(err):
			return err
		}
		r.version = 0 // the answer was lost: ask
	}
	return errors.New("no answer to a release")
}

// reAdd adds the item of l to m, where it belongs: in any case, or only if the server has not got it so far. That it is
// another gate's shows at its next renewal.
func (l *lease) reAdd(m *member, all bool) {
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
		a := r.reAdd()
		t.leave()
		if a.vote == voteFailed || a.vote == voteNo && !m.granting() && !l.isReleased() {
			// A gate that was there before us may have been too early, and give it back.
			m.restoreAll.Store(true)
		}
	}
}

var _ sessionlock.Lease = (*lease)(nil)
