package sessionlock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Local is a Store in the process's memory, for the managers that share it. Its leases end only by Release. Managers
// that wait for the same lease take turns. Create it with NewLocal.
type Local struct {
	shards [64]localShard
}

type localShard struct {
	mu        sync.Mutex
	leases    map[Key]*localLease
	successor Successor               // nil: the store has not been handed over
	asked     map[Key]<-chan struct{} // leases requested from the successor that no manager has taken yet
}

// localLease is the lease of a key. Once it is released to waiting managers, it is the turn of the first of them.
type localLease struct {
	shard *localShard
	key   Key

	// Guarded by the shard's mutex.
	turn   bool      // the lease is free and reserved for the first in line
	line   [][8]byte // the managers that wait, in the order in which they came
	broken bool      // the successor has ended it
}

// NewLocal returns a store without leases.
func NewLocal() *Local {
	s := new(Local)
	for i := range s.shards {
		s.shards[i].leases = make(map[Key]*localLease)
	}
	return s
}

// Acquire takes the lease of key, or returns ErrHeld. If the store has been handed over, it awaits the successor's
// answer for a moment: a request that does not wait for locks asks only once.
func (s *Local) Acquire(ctx context.Context, key Key, token Token) (Lease, error) {
	lease, answer, err := s.acquire(key, token)
	if answer == nil {
		return lease, err
	}
	timeout := time.NewTimer(answerTime)
	defer timeout.Stop()
	select {
	case <-answer:
	case <-timeout.C:
		return nil, err
	case <-ctx.Done():
		return nil, err
	}
	lease, _, err = s.acquire(key, token)
	return lease, err
}

// answerTime bounds the wait for the successor's answer, for a request with a max_wait of zero, too.
const answerTime = 100 * time.Millisecond

// acquire is Acquire without the wait. If it has just asked the successor, it returns the channel of the answer.
func (s *Local) acquire(key Key, token Token) (got Lease, answer <-chan struct{}, err error) {
	sh := s.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	lease := &localLease{shard: sh, key: key}
	if answer, err := sh.askSuccessor(key); err != nil {
		return nil, answer, err
	}
	if old := sh.leases[key]; old != nil {
		if !old.turn || old.line[0] != token.Manager() {
			old.wait(token.Manager())
			return nil, nil, ErrHeld
		}
		lease.line = old.line[1:]
	}
	sh.leases[key] = lease
	return lease, nil, nil
}

// Adopt returns a lease without effect. It is never needed, as this store never fails.
func (s *Local) Adopt(key Key, _ Token) Lease { return &localLease{shard: s.shardOf(key), key: key} }

// Withdraw removes the manager of token from the line.
func (s *Local) Withdraw(key Key, token Token) {
	sh := s.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.withdrawFromSuccessor(key)
	l := sh.leases[key]
	if l == nil {
		return
	}
	if i := slices.Index(l.line, token.Manager()); i >= 0 {
		l.line = slices.Delete(l.line, i, i+1)
	}
	if l.turn && len(l.line) == 0 {
		sh.end(key)
	}
}

// TTL returns zero: leases live as long as the process.
func (s *Local) TTL() time.Duration { return 0 }

func (s *Local) shardOf(key Key) *localShard { return &s.shards[key[1]%uint8(len(s.shards))] }

func (l *localLease) wait(manager [8]byte) {
	if !slices.Contains(l.line, manager) {
		l.line = append(l.line, manager)
	}
}

// Renew does nothing: the lease lives until its Release.
func (l *localLease) Renew(context.Context) error { return nil }

// ShouldYield reports whether another manager waits, or the successor has ended the lease.
func (l *localLease) ShouldYield() bool {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	return len(l.line) > 0 || l.broken
}

// Release frees the lease, or reserves it for the first in line, unless the successor has ended it.
func (l *localLease) Release() {
	l.shard.mu.Lock()
	defer l.shard.mu.Unlock()
	if l.shard.leases[l.key] != l || l.turn {
		return
	}
	if len(l.line) == 0 || l.broken {
		l.shard.end(l.key)
		return
	}
	l.turn = true
}

// Successor is the process that has taken over from this one, which ends as soon as its requests have. It decides from
// then on which of the two has a lease. Its methods are called with a mutex held, so they must not block.
type Successor interface {
	// Ask asks for the lease of key. The channel is closed when this process has it.
	Ask(key Key) <-chan struct{}
	// Release ends a lease that has been handed over or asked for, whether it was granted or not.
	Release(key Key)
}

// askSuccessor asks for the lease of key where the store has been handed over. The error is nil if this process may
// take the lease. Otherwise, if it has asked just now, it returns the channel of the answer. The caller must hold the
// mutex, as for all that follow.
func (sh *localShard) askSuccessor(key Key) (answer <-chan struct{}, err error) {
	if sh.successor == nil || sh.leases[key] != nil {
		return nil, nil
	}
	granted := sh.asked[key]
	if granted == nil {
		granted = sh.successor.Ask(key)
		sh.asked[key], answer = granted, granted
	}
	select {
	case <-granted:
		delete(sh.asked, key)
		return nil, nil
	default:
		return answer, &RetryError{Err: ErrHeld, Ready: granted}
	}
}

// withdrawFromSuccessor gives up a lease that has been asked for.
func (sh *localShard) withdrawFromSuccessor(key Key) {
	if sh.asked[key] != nil {
		delete(sh.asked, key)
		sh.successor.Release(key)
	}
}

// end frees the lease of key.
func (sh *localShard) end(key Key) {
	delete(sh.leases, key)
	if sh.successor != nil {
		sh.successor.Release(key)
	}
}
