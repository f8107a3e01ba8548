package memcachelock_test

import (
	"cmp"
	"errors"
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
		m.checkTimes(a, now)
		m.checkProgress(a, now)
		for _, b := range m.tries[i+1:] {
			if a.key == b.key {
				m.checkPair(a, b, now)
			}
		}
	}
	if m.Failed() {
		m.FailNow()
	}
	m.forget(now.Add(-3 * modelLease))
}

// checkTimes: no wait is longer than its max wait and one timeout, no hold longer than its expiry, and a loss is
// one of those that can be.
func (m *model) checkTimes(a *try, now time.Time) {
	if got, most := cmp.Or(a.answered, now).Sub(a.begun), a.policy.MaxWait+modelTimeout; got > most {
		m.Errorf("waited %v, want %v at most", got, most)
	}
	if !a.got() {
		return
	}
	if got := cmp.Or(a.end(), now).Sub(a.lock.Since()); got > a.policy.Expiry {
		m.Errorf("held for %v, want %v at most", got, a.policy.Expiry)
	}
	if m.level == 0 && errors.Is(a.loss, sessionlock.ErrLost) {
		m.Error("a lease is lost of servers that lose none")
	}
}

// checkLocal: a hold begins locally only if its server has not answered for long, or when it would end its wait, and
// not next to a hold of another gate that its gate knows of and whose lease may still live. It is called with the
// mutex held.
func (m *model) checkLocal(b *try) {
	now := b.lock.Since()
	sick, until := m.sick != nil, now
	if !sick && now.Sub(m.quiet) < time.Second { // which the gate may not have noticed
		sick, until = true, m.quiet
	}
	if away := until.Sub(m.since); now.Sub(b.begun) < b.policy.MaxWait && (away < patience || !sick) {
		m.Errorf("held locally although the server was away for %v only, want %v", away, patience)
	}
	b.gate.mu.Lock()
	told := b.gate.told[b.lock.Token()]
	b.gate.mu.Unlock()
	if told.IsZero() || !now.Before(m.since.Add(modelTTL)) {
		return
	}
	for _, a := range m.tries {
		if a.key == b.key && a.gate != b.gate && a.got() && a.lock.Since().Before(told) && a.end().IsZero() {
			m.Errorf("gate %d holds locally, %v after it learned that gate %d has the lock", b.gate.number, now.Sub(told), a.gate.number)
		}
	}
}

// checkPair: two holds of a session have no time in common, and the request that came first to a gate is served first.
func (m *model) checkPair(a, b *try, now time.Time) {
	if a.got() && b.got() {
		from := locktest.Latest(a.lock.Since(), b.lock.Since())
		ends := []time.Time{cmp.Or(a.end(), now), cmp.Or(b.end(), now)}
		if a.gate != b.gate { // while one of them is held locally, nothing is promised, but for checkLocal
			m.checkReunion(a, b, now)
			ends = append(ends, cmp.Or(a.local, now), cmp.Or(b.local, now))
		}
		to := locktest.Earliest(ends...)
		if from.Before(to) && !m.excused(from, to) {
			m.Errorf("gates %d and %d hold the lock for %v, from %v to %v", a.gate.number, b.gate.number, to.Sub(from), from, to)
		}
	}
	if a.gate == b.gate && b.got() && b.answered.Before(cmp.Or(a.answered, now)) {
		m.Errorf("the request of %v got the lock at %v, before the request of %v", b.begun, b.answered, a.begun)
	}
}

// checkReunion: holds that began next to each other while the store was away do not go on long after it is back.
func (m *model) checkReunion(a, b *try, now time.Time) {
	const most = 3*time.Second + 2*farLatency
	if back := now.Sub(m.quiet); m.sick == nil && back > most && a.holds() && b.holds() {
		m.Errorf("gates %d and %d both hold the lock %v after the store is back", a.gate.number, b.gate.number, back)
	}
}

// excused reports whether a lease was evicted so recently that its holder cannot know yet: the next renewal shows it. A
// flush is no excuse: it removes the epoch, too, and then no gate grants a lease.
func (m *model) excused(from, to time.Time) bool {
	for _, loss := range m.excuses {
		if !from.Before(loss) && !to.After(loss.Add(modelTTL)) {
			return true
		}
	}
	return false
}

// checkProgress: no gate waits for a lock that is free while all is well. What a gate has left behind is free after
// a lease.
func (m *model) checkProgress(a *try, now time.Time) {
	if !a.answered.IsZero() || m.sick != nil {
		return
	}
	free := locktest.Latest(a.begun, m.quiet)
	for _, b := range m.tries {
		if b.key != a.key || !b.got() {
			continue
		}
		if b.holds() {
			return
		}
		free = locktest.Latest(free, b.end())
	}
	most := 2*time.Second + 200*time.Millisecond // a turn that no gate takes
	if m.level > 0 {
		most += modelLease + time.Second
	}
	if got := now.Sub(free); got > most {
		m.Errorf("waits for a lock that has been free for %v, want %v at most", got, most)
	}
}
