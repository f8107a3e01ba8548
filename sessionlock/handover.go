package sessionlock

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

// Break marks the lease of key as ended by the successor: it is not handed on, to a waiter or to another manager. The
// caller then breaks the lock.
func (s *Local) Break(key Key) {
	sh := s.shardOf(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch l := sh.leases[key]; {
	case l == nil:
	case l.turn:
		sh.end(key)
	default:
		l.broken = true
	}
}
