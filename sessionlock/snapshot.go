package sessionlock

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"time"
)

// SessionState is what an operator sees of a session that is held or waited for.
type SessionState struct {
	Key     Key
	Held    bool // by this process; if not, the next five fields are zero
	Local   bool // within this process only, because the store failed
	Holder  Description
	Token   Token
	Since   time.Time
	Expires time.Time
	Waiters []WaiterState // in order; if there is no holder, the first one is acquiring the lock
}

// WaiterState is a waiter.
type WaiterState struct {
	Description
	Since time.Time
}

// Snapshot returns the sessions that are held or waited for in this process: those held longest first, then those that
// this process does not hold. It locks one shard at a time, so the result is not from a single moment.
func (m *Manager) Snapshot() []SessionState {
	var all []SessionState
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for _, s := range sh.sessions {
			all = append(all, s.snapshot())
		}
		sh.mu.Unlock()
	}
	slices.SortFunc(all, heldLongest)
	return all
}

// AssumeWaiters calls OnWaiter for each lock that is held, and from now on for each as soon as it is held, as if a
// request waited for it: one may wait in another process.
func (m *Manager) AssumeWaiters() {
	m.assumeWaiters.Store(true) // before the loop: a lock is seen here, or begins with it
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for _, s := range sh.sessions {
			if s.holder != nil {
				s.holder.notifyWaiter()
			}
		}
		sh.mu.Unlock()
	}
}

func heldLongest(a, b SessionState) int {
	switch {
	case a.Held && !b.Held:
		return -1
	case b.Held && !a.Held:
		return 1
	}
	return cmp.Or(a.Since.Compare(b.Since), bytes.Compare(a.Key[:], b.Key[:]))
}

func (s *session) snapshot() SessionState {
	state := SessionState{Key: s.key}
	if l := s.holder; l != nil {
		state.Held, state.Holder, state.Token = true, describe(l), l.token
		state.Local = l.local
		state.Since, state.Expires = l.since, l.expires
	}
	for w := s.first; w != nil; w = w.next {
		state.Waiters = append(state.Waiters, WaiterState{describe(w), w.entered})
	}
	return state
}

// describe returns the Description of the holder or waiter of l, the zero one if l is nil.
func describe(l *Lock) Description {
	if l == nil || l.by == nil {
		return Description{}
	}
	return l.by.Describe()
}

// DescribeHolder returns the Description of the holder of key, and reports whether this process holds it.
func (m *Manager) DescribeHolder(key Key) (d Description, held bool) {
	sh := m.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[key]; s != nil && s.holder != nil {
		return describe(s.holder), true
	}
	return Description{}, false
}

// Holder returns the Holder of the hold with that token, as SessionState has it, and nil if that has ended. It is for
// callers that know more of their holders than a Holder's methods. The hold may have ended by the time that Holder
// returns, so they must not call Describe: see DescribeHolder.
func (m *Manager) Holder(key Key, token Token) Holder {
	sh := m.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s := sh.sessions[key]; s != nil && s.holder != nil && s.holder.token == token {
		return s.holder.by
	}
	return nil
}

// ErrBroken is returned by Lock.Err after Manager.Break and BreakHold.
var ErrBroken = errors.New("the lock was broken by an operator")

// BreakHold ends the hold with that token, as SessionState has it, and reports whether it did. A later hold of the lock
// is left alone. The holder is notified by Lost and keeps running; the next waiter gets the lock.
func (m *Manager) BreakHold(key Key, token Token) bool {
	sh := m.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[key]
	return s != nil && s.holder != nil && s.holder.token == token && s.holder.end(broken)
}

// Break ends the lock of key as BreakHold does, whatever hold it is, and reports whether this process held it.
func (m *Manager) Break(key Key) bool {
	sh := m.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[key]
	switch {
	case s == nil:
		return false
	case s.holder != nil:
		return s.holder.end(broken)
	case s.lease != nil: // it is being handed on: the waiter with the turn asks the store again
		s.endLease()
	}
	return false
}
