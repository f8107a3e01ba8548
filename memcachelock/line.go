package memcachelock

import (
	"errors"
	"slices"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The gates that wait for a lock stand in a line, an item beside it. A lock that is handed on goes to the first:
// its item says whose turn it is. All of this is for fairness only. A gate that has died in the line costs one turn.
const (
	lineSeconds  = 3                    // of the line, from when somebody has last come or asked
	lineRefresh  = time.Second          // how often a waiting gate does
	lineAge      = 5 * time.Millisecond // how old the holder's knowledge of it may be
	turnSeconds  = 2                    // of a turn; a gate that waits asks twice a second at least
	maxLine      = 64                   // gates
	lineAttempts = 3                    // to write it, as others do
)

// wait is what a manager that was told ErrHeld has done about it. It is in the hands of the manager, which asks one
// question at a time.
type wait struct {
	waitKey
	inLine    bool
	refreshed time.Time
	deferred  bool // let others go first, once
	line      *memcache.Item
	holder    string    // the value of the lock when we last looked; "": it was free
	held      time.Time // since when that was seen
}

type waitKey struct {
	key     sessionlock.Key
	manager manager
}

func (s *Store) waitOf(key sessionlock.Key, token sessionlock.Token) *wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits[waitKey{key, manager(token.Manager())}]
}

func (s *Store) beginWait(key sessionlock.Key, token sessionlock.Token) *wait {
	w := &wait{waitKey: waitKey{key, manager(token.Manager())}, held: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits[w.waitKey] = w
	return w
}

// sees notes who holds the lock now.
func (w *wait) sees(lock *memcache.Item) {
	value := ""
	if lock != nil {
		value = string(lock.Value)
	}
	if value != w.holder {
		w.holder, w.held = value, time.Now()
	}
}

// A gate that waits asks the more often the shorter the lock has been held for, as most scripts are short and a long
// one is not made longer by much. Only the first in the line is likely to get it: those behind ask more seldom.
const (
	pollShare  = 16 // of the time that the lock has been held for
	minPoll    = time.Millisecond
	maxPoll    = 6 * time.Millisecond // of the first in the line
	maxPollFar = 50 * time.Millisecond
	pollLimit  = 500 * time.Millisecond // so that a turn is seen before it ends
)

// held adds to an ErrHeld when to ask again.
func (s *Store) held(err error, w *wait) error {
	if !errors.Is(err, sessionlock.ErrHeld) {
		return err
	}
	pause := min(max(minPoll, time.Since(w.held)/pollShare), maxPoll)
	if place := slices.Index(parseLine(w.line), w.manager); place > 0 {
		pause = min(time.Duration(place+1)*pause, maxPollFar)
	}
	return &sessionlock.HeldError{Again: max(pause, s.pollPause())}
}

// pollPause is the pause with which all waits together stay below the rate. A manager asks after three quarters of it
// on average.
func (s *Store) pollPause() time.Duration {
	s.mu.Lock()
	n := len(s.waits)
	s.mu.Unlock()
	pause := time.Duration(n) * time.Second / time.Duration(s.options.MaxPollRate)
	return min(pause*4/3, pollLimit)
}

// first says whether nobody else is ahead in the line.
func (w *wait) first() bool {
	line := parseLine(w.line)
	return len(line) == 0 || line[0] == w.manager
}

// lineServer is where the line of key is: the first of its servers that is up. Nil: none is.
func (s *Store) lineServer(key sessionlock.Key) *server {
	for _, v := range s.serversOf(key) {
		if v.isUp() {
			return v
		}
	}
	return nil
}

// stayInLine joins the line, or makes it live on.
func (s *Store) stayInLine(key sessionlock.Key, w *wait) {
	v := s.lineServer(key)
	if v == nil || v.inGrace() {
		return
	}
	name := s.lineName(key)
	switch line := parseLine(w.line); {
	case !slices.Contains(line, w.manager):
		if len(line) >= maxLine {
			return
		}
		if err := v.writeLine(name, w.line, append(line, w.manager)); err == nil {
			w.inLine, w.refreshed = true, time.Now()
		}
	case time.Since(w.refreshed) >= lineRefresh:
		_, _ = v.getAndTouch(name, lineSeconds)
		w.refreshed = time.Now()
	}
}

// writeLine writes line if it is still old on the server.
func (v *server) writeLine(name string, old *memcache.Item, line []manager) error {
	switch {
	case old == nil:
		return v.add(name, lineValue(line), lineSeconds)
	case len(line) == 0:
		return v.compareAndSwap(name, nil, deleteNow, old.CasID)
	}
	return v.compareAndSwap(name, lineValue(line), lineSeconds, old.CasID)
}

// leaveLine takes m out of the line of key, and says whether it was there.
func (s *Store) leaveLine(key sessionlock.Key, m manager) bool {
	v := s.lineServer(key)
	if v == nil {
		return false
	}
	name := s.lineName(key)
	for range lineAttempts {
		items, err := v.get(name)
		if err != nil {
			return false
		}
		line := parseLine(items[name])
		i := slices.Index(line, m)
		if i < 0 {
			return false
		}
		err = v.writeLine(name, items[name], slices.Delete(line, i, i+1))
		if err == nil || !answered(err) {
			return true
		}
	}
	return true
}

// nextInLine is the first gate but own that waits; the zero manager: nobody.
func (s *Store) nextInLine(key sessionlock.Key, own manager) manager {
	v := s.lineServer(key)
	if v == nil {
		return manager{}
	}
	name := s.lineName(key)
	items, err := v.get(name)
	if err != nil {
		return manager{}
	}
	for _, m := range parseLine(items[name]) {
		if m != own {
			return m
		}
	}
	return manager{}
}

// readLine asks who waits.
func (l *lease) readLine() {
	var line []manager
	name := l.store.lineName(l.key)
	if v := l.store.lineServer(l.key); v != nil {
		if items, err := v.get(name); err == nil {
			line = parseLine(items[name])
		}
	}
	l.waiters(line)
}

// given takes next, for whom the lock is kept now, out of the line. If it has left in the meantime, nobody would
// take the lock: it is passed on.
func (s *Store) given(key sessionlock.Key, next manager) {
	if !s.leaveLine(key, next) {
		s.passOn(key, next)
	}
}

// Withdraw leaves the line, and passes on the lock if it is kept for this manager by now.
func (s *Store) Withdraw(key sessionlock.Key, token sessionlock.Token) {
	k := waitKey{key, manager(token.Manager())}
	s.mu.Lock()
	w := s.waits[k]
	delete(s.waits, k)
	s.mu.Unlock()
	if w == nil || !w.inLine {
		return
	}
	tickets := s.ticketsOf(key)
	s.background.Go(func() {
		s.leaveLine(key, w.manager)
		s.passOnWith(tickets, key, w.manager)
	})
}

func (s *Store) ticketsOf(key sessionlock.Key) (tickets []*ticket) {
	for _, v := range s.serversOf(key) {
		tickets = append(tickets, v.ticket(key))
	}
	return tickets
}

// passOn gives the lock that is kept for m to the next in line, or frees it.
func (s *Store) passOn(key sessionlock.Key, m manager) { s.passOnWith(s.ticketsOf(key), key, m) }

func (s *Store) passOnWith(tickets []*ticket, key sessionlock.Key, m manager) {
	for _, t := range tickets {
		s.background.Go(func() {
			defer t.leave()
			t.wait()
			_ = t.server.freeTurn(s.lockName(key), m)
		})
	}
}

// freeTurn deletes the turn of m. Those who wait see a free lock, and the first in line takes it.
func (v *server) freeTurn(name string, m manager) error {
	items, err := v.get(name)
	if err != nil {
		return err
	}
	item := items[name]
	if !sameValue(item, turnValue(m)) {
		return nil
	}
	err = v.compareAndSwap(name, nil, deleteNow, item.CasID)
	if errors.Is(err, memcache.ErrCASConflict) {
		return nil
	}
	return err
}
