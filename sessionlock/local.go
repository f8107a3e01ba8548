package sessionlock

import (
	"context"
	"sync"
	"time"
)

// Local is a Store within the process: it serves all managers that are given it. Its leases end by Release
// only, and cost no round trip.
type Local struct {
	shards [64]struct {
		mu     sync.Mutex
		leases map[Key]Token
	}
}

// NewLocal makes a local store, in which nobody has a lease.
func NewLocal() *Local {
	s := new(Local)
	for i := range s.shards {
		s.shards[i].leases = make(map[Key]Token)
	}
	return s
}

// Acquire takes the lease of key, or says ErrHeld.
func (s *Local) Acquire(_ context.Context, key Key, token Token) (Lease, error) {
	sh := &s.shards[key[1]%uint8(len(s.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, held := sh.leases[key]; held {
		return nil, ErrHeld
	}
	sh.leases[key] = token
	return localLease{s, key, token}, nil
}

// TTL is zero: a lease lives as long as the process.
func (s *Local) TTL() time.Duration { return 0 }

type localLease struct {
	store *Local
	key   Key
	token Token
}

func (l localLease) Renew(context.Context) error { return nil }
func (l localLease) Due() bool                   { return false }

func (l localLease) Release() {
	sh := &l.store.shards[l.key[1]%uint8(len(l.store.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.leases[l.key] == l.token {
		delete(sh.leases, l.key)
	}
}
