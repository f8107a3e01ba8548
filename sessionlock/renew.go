package sessionlock

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// renewer renews the leases of a manager, each after every. All live equally long, so the list of them is in
// the order of their renewals, and one timer serves all.
type renewer struct {
	every time.Duration // zero: leases need no renewal

	mu     sync.Mutex
	leases map[Lease]*list.Element
	order  list.List // of *renewal
	timer  *time.Timer
}

type renewal struct {
	session *session
	lease   Lease
	due     time.Time
}

func (r *renewer) add(m *Manager, s *session, lease Lease) {
	if r.every == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leases == nil {
		r.leases = make(map[Lease]*list.Element)
	}
	r.leases[lease] = r.order.PushBack(&renewal{s, lease, time.Now().Add(r.every)})
	if r.timer == nil {
		r.timer = time.AfterFunc(r.every, func() { r.run(m) })
	}
}

func (r *renewer) remove(lease Lease) {
	if r.every == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.leases[lease]; e != nil {
		r.order.Remove(e)
		delete(r.leases, lease)
	}
}

// run renews all that are due, and sets the timer for the next.
func (r *renewer) run(m *Manager) {
	for {
		due, wait := r.next()
		if due == nil {
			if wait > 0 {
				r.timer.Reset(wait)
			}
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), r.every)
		err := due.lease.Renew(ctx)
		cancel()
		if errors.Is(err, ErrLost) {
			m.loseLease(due.session, due.lease)
		}
	}
}

// next takes the first lease, if it is due, and puts it behind the last. If none is due it says how long there
// is to wait; if there is none at all, the timer is forgotten.
func (r *renewer) next() (*renewal, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	front := r.order.Front()
	if front == nil {
		r.timer = nil
		return nil, 0
	}
	first := front.Value.(*renewal)
	if wait := time.Until(first.due); wait > 0 {
		return nil, wait
	}
	first.due = time.Now().Add(r.every)
	r.order.MoveToBack(front)
	return first, 0
}

// loseLease ends the lock that stands on a lease which the store does not know any more.
func (m *Manager) loseLease(s *session, lease Lease) {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	if s.lease != lease {
		return
	}
	m.renew.remove(lease)
	s.lease = nil
	if s.holder != nil {
		s.holder.endLocked(lost)
	}
}
