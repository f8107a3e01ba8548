package sessionlock

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"time"
)

// SessionState is what an operator sees of a session that somebody holds or waits for.
type SessionState struct {
	Key     Key
	Held    bool // somebody of this process holds it; the next five are zero if not
	Local   bool // within this process only: the store failed
	Holder  Description
	Token   Token
	Since   time.Time
	Expires time.Time
	Waiters []WaiterState // in their order; without a holder the first one asks the store
}

// WaiterState is one of the waiters.
type WaiterState struct {
	Description
	Since time.Time
}

// Snapshot returns the sessions that are held or waited for in this process: those held longest first, and
// behind them those that nobody of this process holds. It stops a part of the sessions at a time, each for a
// moment.
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

// describe asks who holds l or waits for it; nobody is nobody.
func describe(l *Lock) Description {
	if l == nil || l.by == nil {
		return Description{}
	}
	return l.by.Describe()
}

// ErrBroken is that of a lock that an operator has ended.
var ErrBroken = errors.New("the lock was broken by an operator")

// Break ends the lock of key, if somebody of this process holds it, and says whether. The holder is told by
// Lost and goes on; the next waiter gets the lock.
func (m *Manager) Break(key Key) bool {
	sh := m.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := sh.sessions[key]
	return s != nil && s.holder != nil && s.holder.end(broken)
}
