package sessionwatch

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// keyStore is a store in which a session handler of PHP's has a key for each session that is open: its lock. Of a
// handler it takes no more than this to be watched.
type keyStore struct {
	place string
	// names returns the keys of a session's lock and of the session itself. Without ok the store would refuse them.
	names func(id string) (lock, data string, ok bool)
	// present reports which keys are there. With an error the others may be there too. It is called by two goroutines
	// at most, and asks with a timeout of its own.
	present func(ctx context.Context, keys []string) (map[string]bool, error)
	// commands is how many commands present sends.
	commands int
	// report is called when the store does not answer, once, and with a nil error when it does again.
	report func(error)
}

// poller asks a key store, for all watches at once, whether their sessions are open: one goroutine with one request at
// a time, however many watches there are. A session is asked for while a request waits for it. So what a watch has seen
// before is nothing, and a session that was open for a moment may not be seen at all.
//
// A key that is not there proves nothing: PHP may lock no sessions, or keep them elsewhere. It is believed once lock
// keys were seen in the store, and the session's own lock or data with them. So a few sessions of which neither was
// seen yet are asked for although no request waits.
type poller struct {
	store keyStore
	asked atomic.Uint64 // commands
	wake  chan struct{} // a watch is due
	life  context.Context
	end   context.CancelFunc
	ended chan struct{}
	next  time.Time // when the next command may be sent; only run's

	looking sync.Mutex // of Destroyed

	mu       sync.Mutex
	watches  map[*keyWatch]struct{} // that are asked for
	samples  int                    // of them, those that no request waits for
	failing  bool                   // the last request had no answer
	seed     maphash.Seed
	seen     sightings
	lastLock time.Time // when a lock key was last seen
}

const (
	// A session is asked for after a quarter of the time since a request has begun to wait, within these bounds.
	minAskPause = 2 * time.Millisecond
	maxAskPause = 25 * time.Millisecond
	// maxAskRate bounds the commands per second of all watches together.
	maxAskRate = 2000
	// maxAskKeys is how many keys one command asks for.
	maxAskKeys = 100
	// maxSamples bounds the watches that are asked for although no request waits.
	maxSamples = 4
	// believeLocks is how long it is believed that PHP locks its sessions here, after a lock was seen.
	believeLocks = turnTime
)

func newPoller(s keyStore) *poller {
	if s.report == nil {
		s.report = func(error) {}
	}
	p := &poller{
		store:   s,
		wake:    make(chan struct{}, 1),
		ended:   make(chan struct{}),
		watches: make(map[*keyWatch]struct{}),
		seed:    maphash.MakeSeed(),
	}
	p.life, p.end = context.WithCancel(context.Background())
	go p.run()
	return p
}

// Place is the servers.
func (p *poller) Place() string { return p.store.place }

// Asked is how many commands have been sent.
func (p *poller) Asked() uint64 { return p.asked.Load() }

// Close ends the asking.
func (p *poller) Close() {
	p.end()
	<-p.ended
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watches {
		w.lose()
	}
	clear(p.watches)
}

// Watch watches the lock key of id.
func (p *poller) Watch(id []byte, changed func(State)) Watch { return p.watch(id, changed, Unseen) }

// WatchOpen watches the lock key of id, which should be there.
func (p *poller) WatchOpen(id []byte, changed func(State)) Watch {
	return p.watch(id, changed, Presumed)
}

func (p *poller) watch(id []byte, changed func(State), state State) Watch {
	lock, data, ok := p.store.names(string(cString(id)))
	if !ok {
		return nothing{}
	}
	w := &keyWatch{poller: p, lock: lock, data: data, hash: maphash.String(p.seed, lock), changed: changed, state: state}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.seen.turn(now)
	if !p.believes(w, now) && p.samples < maxSamples && p.life.Err() == nil {
		p.samples++
		w.ask(now.Add(minAskPause))
	}
	return w
}

// believes reports whether PHP locks sessions in the store, and keeps that of w there. It is called with the mutex held.
func (p *poller) believes(w *keyWatch, now time.Time) bool {
	return p.locks(now) && p.seen.look(w.hash) != 0
}

// locks reports whether a lock key was seen lately. It is called with the mutex held.
func (p *poller) locks(now time.Time) bool {
	return !p.lastLock.IsZero() && now.Sub(p.lastLock) < believeLocks
}

// run asks, round by round, until Close.
func (p *poller) run() {
	defer close(p.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.life.Done():
			return
		}
		p.pace()
		due, pause := p.due()
		for len(due) > 0 && p.life.Err() == nil {
			due, pause = p.ask(due), 0
			p.pace()
		}
		timer.Reset(pause)
	}
}

// due returns the watches whose time has come, or nearly so, and how long the next one has.
func (p *poller) due() (due []*keyWatch, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	pause = time.Hour
	for w := range p.watches {
		if left := w.due.Sub(now); left <= minAskPause/2 {
			due = append(due, w)
		} else {
			pause = min(pause, left)
		}
	}
	return due, pause
}

// ask asks for as many of the watches as one command has room for, and returns the others.
func (p *poller) ask(due []*keyWatch) []*keyWatch {
	keys, n := p.keysOf(due)
	if len(keys) == 0 {
		return due[n:]
	}
	p.next = time.Now().Add(time.Duration(p.store.commands) * time.Second / maxAskRate)
	p.asked.Add(uint64(p.store.commands))
	there, err := p.store.present(p.life, keys)
	p.mu.Lock()
	now := time.Now()
	for _, w := range due[:n] {
		w.take(there, err, now)
	}
	changed := p.failing != (err != nil) && p.life.Err() == nil
	p.failing = err != nil
	p.mu.Unlock()
	if changed {
		p.store.report(err)
	}
	return due[n:]
}

// keysOf returns the keys that the first n watches need, as many as go into one command.
func (p *poller) keysOf(due []*keyWatch) (keys []string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	locks := p.locks(time.Now())
	for _, w := range due {
		if len(keys)+2 > maxAskKeys {
			break
		}
		n++
		if _, asks := p.watches[w]; !asks {
			continue // it was stopped meanwhile
		}
		w.owed, w.asking = false, w.owed
		keys = append(keys, w.lock)
		if locks && (w.state == Unseen || w.state == Presumed) {
			keys = append(keys, w.data)
		}
	}
	return keys, n
}

// pace waits until the next commands may be sent.
func (p *poller) pace() { time.Sleep(time.Until(p.next)) }

// keyWatch is one request's watch over a lock key. It is guarded by the poller's mutex.
type keyWatch struct {
	poller     *poller
	lock, data string
	hash       uint64
	changed    func(State)

	state    State
	answered bool      // the last request that asked for it had an answer
	due      time.Time // when it is asked for next
	since    time.Time // when it was last wanted
	wanted   bool      // a request waits
	owed     bool      // changed is to be called with an answer to a request that is still to be sent
	asking   bool      // or that has been sent
	stopped  bool
}

// State is what the last answer said.
func (w *keyWatch) State() State {
	w.poller.mu.Lock()
	defer w.poller.mu.Unlock()
	switch {
	case w.state == Closed || w.answered:
		return w.state
	case w.poller.believes(w, time.Now()):
		return Unknown
	}
	return Unproven
}

// Asks is true.
func (w *keyWatch) Asks() bool { return true }

// Want asks at once, and then again and again. A second call asks at once, too.
func (w *keyWatch) Want() {
	p := w.poller
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.stopped || w.state == Closed || p.life.Err() != nil {
		return
	}
	w.leave()
	w.wanted, w.owed = true, true
	w.ask(time.Now())
}

// ask has the session asked for at due, and again after that.
func (w *keyWatch) ask(due time.Time) {
	p := w.poller
	w.due, w.since = due, due
	p.watches[w] = struct{}{}
	select {
	case p.wake <- struct{}{}:
	default: // run has been woken already
	}
}

func (w *keyWatch) Stop() {
	w.poller.mu.Lock()
	defer w.poller.mu.Unlock()
	w.stopped = true
	w.leave()
}

// leave ends the asking for the session.
func (w *keyWatch) leave() {
	p := w.poller
	if _, asks := p.watches[w]; asks && !w.wanted {
		p.samples--
	}
	delete(p.watches, w)
}

// take takes an answer.
func (w *keyWatch) take(there map[string]bool, err error, now time.Time) {
	p := w.poller
	if _, asks := p.watches[w]; !asks {
		return
	}
	if !w.owed {
		w.due = now.Add(w.pause(now))
	}
	switch {
	case there[w.lock]:
		w.answered, w.state, p.lastLock = true, Open, now
		p.seen.note(w.hash, false)
		return
	case err != nil:
		w.lose()
	default:
		w.answered = true
		w.absent(there[w.data], now)
	}
	if w.asking && w.answered && w.state != Closed {
		w.changed(w.state)
	}
}

// absent notes that the lock key is not there, and whether the session's data are.
func (w *keyWatch) absent(data bool, now time.Time) {
	p := w.poller
	if data {
		p.seen.note(w.hash, false)
	}
	kept := p.believes(w, now)
	switch {
	case w.state == Open, w.state == Presumed && kept:
		w.state = Closed
		w.leave()
		w.changed(Closed)
	case w.state == Presumed:
	case !kept:
		w.state = Unseen
	default:
		if w.state = Shut; !w.wanted {
			w.leave() // it is known now where PHP keeps it
		}
	}
}

// lose says that it cannot be told, for now, whether the session is open.
func (w *keyWatch) lose() {
	if w.answered || w.asking {
		w.answered = false
		w.changed(Unknown)
	}
}

// pause is how long the watch waits before it is asked for again.
func (w *keyWatch) pause(now time.Time) time.Duration {
	return min(max(now.Sub(w.since)/4, minAskPause), maxAskPause)
}

// Destroyed asks for the session itself. PHP deletes it before it gives up its lock.
func (w *keyWatch) Destroyed() bool {
	p := w.poller
	p.looking.Lock() // one look at a time, beside run's requests
	defer p.looking.Unlock()
	p.asked.Add(uint64(p.store.commands))
	there, err := p.store.present(p.life, []string{w.data})
	return err == nil && !there[w.data]
}
