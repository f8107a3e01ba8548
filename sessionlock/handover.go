package sessionlock

// Successor is the process that has taken over from this one, which ends as soon as its requests have. It decides from
// then on which of the two has a lease. Its methods are called with a mutex held, so they must not block.
type Successor interface {
	// Ask asks for the lease of key. The channel is closed when this process has it.
	Ask(key Key) <-chan struct{}
	// Release ends a lease that has been handed over or asked for, whether it was granted or not.
	Release(key Key)
}

// HandOver makes the successor the judge of all leases that are asked for from now on, and returns the keys of those
// that are taken. Each of them, and each that is granted, stays with this process until it calls Release: the managers
// here may hand it on to those that wait for it. If the store has been handed over before, to one that has gone, leases
// that were asked for are asked for again.
func (s *Local) HandOver(to Successor) []Key {
	var taken []Key
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for key := range sh.leases {
			taken = append(taken, key)
		}
		sh.successor, sh.asked = to, make(map[Key]<-chan struct{})
		sh.mu.Unlock()
	}
	return taken
}

// TakeBack ends what HandOver began, if that successor has gone and no other has come: leases are taken within this
// process again.
func (s *Local) TakeBack(from Successor) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		if sh.successor == from {
			sh.successor, sh.asked = nil, nil
		}
		sh.mu.Unlock()
	}
}

// Break marks the lease of key as ended by the successor: it is not handed on. The caller then breaks the lock.
func (s *Local) Break(key Key) {
	sh := s.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if l := sh.leases[key]; l != nil {
		l.broken = true
	}
}

// askSuccessor asks for the lease of key where the store has been handed over, and returns nil if this process may take
// it. It is called with the mutex held, as all that follow.
func (sh *localShard) askSuccessor(key Key) error {
	if sh.successor == nil || sh.leases[key] != nil {
		return nil
	}
	granted := sh.asked[key]
	if granted == nil {
		granted = sh.successor.Ask(key)
		sh.asked[key] = granted
	}
	select {
	case <-granted:
		delete(sh.asked, key)
		return nil
	default:
		return &RetryError{Err: ErrHeld, Ready: granted}
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
