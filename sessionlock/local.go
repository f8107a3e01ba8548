package sessionlock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Local is a Store within the process, for all managers that are given it. Its leases end by Release only, and
// cost no round trip. Managers that wait for the same lease take turns. It is made by NewLocal.
type Local struct {
	shards [64]localShard
}

type localShard struct {
	mu     sync.Mutex
	leases map[Key]*localLease
}

// localLease is the lease of a key; or, once it is released to managers that wait, the turn of the first of them.
type localLease struct {
	shard *localShard
	key   Key

	// Guarded by the shard's mutex.
	turn bool      // nobody has the lease: it is kept for the first in line
	line [][8]byte // the managers that wait, the first that came first
}

// NewLocal makes a local store, in which nobody has a lease.
func NewLocal() *Local {
	s := new(Local)
	for i := range s.shards {
		s.shards[i].leases = make(map[Key]*localLease)
	}
	return s
}

// Acquire takes the lease of key, or says ErrHeld.
func (s *Local) Acquire(_ context.Context, key Key, token Token) (Lease, error) {
	sh := s.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	lease := &localLease{shard: sh, key: key}
	if old := sh.leases[key]; old != nil {
		if !old.turn || old.line[0] != token.Manager() {
			old.wait(token.Manager())
			return nil, ErrHeld
		}
		lease.line = old.line[1:]
	}
	sh.leases[key] = lease
	return lease, nil
}

// Adopt returns a lease that is none: a store within the process never fails.
func (s *Local) Adopt(key Key, _ Token) Lease { return &localLease{shard: s.shardOf(key), key: key} }

// Withdraw takes the manager of token out of the line.
func (s *Local) Withdraw(key Key, token Token) {
	sh := s.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	l := sh.leases[key]
	if l == nil {
		return
	}
	if i := slices.Index(l.line, token.Manager()); i >= 0 {
		l.line = slices.Delete(l.line, i, i+1)
	}
	if l.turn && len(l.line) == 0 {
		delete(sh.leases, key)
	}
}

// TTL is zero: a lease lives as long as the process.
func (s *Local) TTL() time.Duration { return 0 }

func (s *Local) shardOf(key Key) *localShard { return &s.shards[key[1]%uint8(len(s.shards))] }

func (l *localLease) wait(manager [8]byte) {
	if !slices.Contains(l.line, manager) {
		l.line = append(l.line, manager)
	}
}

// Renew does nothing: the lease lives until its Release.
func (l *localLease) Renew(context.Context) error { return nil }

// Due says whether another manager waits.
func (l *localLease) Due() bool {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	return len(l.line) > 0
}

// Release frees the lease, or gives the turn to the first in line.
func (l *localLease) Release() {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	if l.shard.leases[l.key] != l || l.turn {
		return
	}
	if len(l.line) == 0 {
		delete(l.shard.leases, l.key)
		return
	}
	l.turn = true
}
