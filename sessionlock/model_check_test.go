package sessionlock_test

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// check holds all that happened so far to the promises.
func (m *model) check() {
	m.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for i, a := range m.tries {
		if !a.checked {
			m.checkWait(a, now)
			m.checkExpiry(a, now)
			m.checkOutcome(a)
			m.checkProgress(a, now)
		}
		for _, b := range m.tries[i+1:] {
			if a.key == b.key && !(a.checked && b.checked) {
				m.checkOneHolder(a, b, now)
				m.checkOrder(a, b, now)
			}
		}
	}
	for _, a := range m.tries {
		a.checked = a.over()
	}
	if m.Failed() {
		m.FailNow()
	}
	m.forget(now.Add(-2 * ttl))
}

// forget leaves out what was over long before: nothing that is to come can meet it.
func (m *model) forget(before time.Time) {
	m.tries = slices.DeleteFunc(m.tries, func(a *try) bool {
		long := a.over() && locktest.Latest(a.answered, a.end()).Before(before)
		if long {
			m.count(a)
		}
		return long
	})
}

// checkOneHolder: two holds of a session have no time in common, but for what the store's loss of a lease allows.
func (m *model) checkOneHolder(a, b *try, now time.Time) {
	if !a.got() || !b.got() {
		return
	}
	from := locktest.Latest(a.lock.Since(), b.lock.Since())
	ends := []time.Time{cmp.Or(a.end(), now), cmp.Or(b.end(), now)}
	if a.gate != b.gate { // a hold without a lease excludes nothing in other gates
		ends = append(ends, cmp.Or(a.local, now), cmp.Or(b.local, now))
	}
	to := locktest.Earliest(ends...)
	if from.Before(to) && !m.excused(a, from, to) {
		m.Errorf("two hold the lock for %v, from %v to %v", to.Sub(from), from, to)
	}
}

// excused reports whether a lease was dropped so recently that its holder cannot know yet: until the next renewal, or
// until a TTL has passed if that fails.
func (m *model) excused(a *try, from, to time.Time) bool {
	for _, drop := range m.drops[a.key] {
		known := drop.Add(ttl/3 + latency)
		for _, gate := range m.gates {
			if gate.cut || gate.mended.After(drop) {
				known = drop.Add(ttl)
			}
		}
		if !from.Before(drop) && !to.After(known) {
			return true
		}
	}
	return false
}

// checkOrder: b, which came after a to the same gate, gets the lock only when a's wait is over.
func (m *model) checkOrder(a, b *try, now time.Time) {
	if a.gate == b.gate && b.lock != nil && b.answered.Before(cmp.Or(a.answered, now)) {
		m.Errorf("the request of %v got the lock at %v, before the request of %v", b.begun, b.answered, a.begun)
	}
}

// checkWait: no wait lasts longer than its max wait and one question.
func (m *model) checkWait(a *try, now time.Time) {
	if got, most := cmp.Or(a.answered, now).Sub(a.begun), a.policy.MaxWait+latency; got > most {
		m.Errorf("waited %v, want %v at most", got, most)
	}
}

// checkExpiry: no hold lasts longer than its expiry.
func (m *model) checkExpiry(a *try, now time.Time) {
	if !a.got() || a.policy.Expiry == 0 {
		return
	}
	if got := cmp.Or(a.end(), now).Sub(a.lock.Since()); got > a.policy.Expiry {
		m.Errorf("held for %v, want %v at most", got, a.policy.Expiry)
	}
}

// checkOutcome: what a lock says of itself fits what happened to it.
func (m *model) checkOutcome(a *try) {
	switch {
	case a.lock == nil && !a.told.IsZero():
		m.Errorf("told of a loss without a lock: %v", a.loss)
	case a.lock != nil && a.lock.Err() != a.loss:
		m.Errorf("got %v from the lock, and %v from OnLoss", a.lock.Err(), a.loss)
	case errors.Is(a.loss, sessionlock.ErrLost) && !m.faults:
		m.Errorf("a lease is lost of a store that loses none")
	case errors.Is(a.err, sessionlock.ErrStore) && a.policy.HoldLocally:
		m.Errorf("got error %v, want the lock, held locally", a.err)
	case a.got() && a.lock.Local() && (!m.faults || !a.policy.HoldLocally):
		m.Error("a lock is held locally that must not be")
	case errors.Is(a.err, sessionlock.ErrStore) && !m.faults:
		m.Errorf("got error %v of a store that does not fail", a.err)
	}
}

// checkProgress: no request waits for a lock that is free. What a gate that was cut off has left in the store is free
// after a TTL.
func (m *model) checkProgress(a *try, now time.Time) {
	if !a.answered.IsZero() || a.gate.cut {
		return
	}
	free := locktest.Latest(a.begun, a.gate.mended)
	for _, b := range m.tries {
		if b.key != a.key || b.lock == nil {
			continue
		}
		if b.holds() {
			return
		}
		free = locktest.Latest(free, b.answered, b.end())
	}
	most := turnKept + longPoll + 2*latency
	if m.faults {
		most += ttl
	}
	if got := now.Sub(free); got > most {
		m.Errorf("waits for a lock that has been free for %v, want %v at most", got, most)
	}
}
