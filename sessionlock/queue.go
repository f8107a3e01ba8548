package sessionlock

import "time"

// waiter is a place in a session's queue. Its fields but turn are guarded by the shard's mutex.
type waiter struct {
	turn   chan struct{} // gets one value when it is this waiter's turn
	called bool          // it has got it
	by     Holder
	since  time.Time
	prev   *waiter
	next   *waiter
	queued bool
}

// call tells the waiter that its turn has come.
func (w *waiter) call() {
	if !w.called {
		w.called = true
		w.turn <- struct{}{}
	}
}

// free says whether whoever comes now has the turn at once.
func (s *session) free() bool { return s.holder == nil && !s.asking && s.first == nil }

func (s *session) push(w *waiter) {
	w.prev, w.next, w.queued = s.last, nil, true
	if s.last != nil {
		s.last.next = w
	} else {
		s.first = w
	}
	s.last = w
	s.length++
}

func (s *session) pushFront(w *waiter) {
	w.prev, w.next, w.queued, w.called = nil, s.first, true, true
	if s.first != nil {
		s.first.prev = w
	} else {
		s.last = w
	}
	s.first = w
	s.length++
}

// remove takes w out of the queue. A nil one, or one that is out of it, is nothing to remove.
func (s *session) remove(w *waiter) {
	if w == nil || !w.queued {
		return
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		s.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		s.last = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	s.length--
}
