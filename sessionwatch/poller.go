package sessionwatch

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// keyStore is a store in which a session handler of PHP has a key for each open session: its lock. It is all that the
// poller needs to know about a handler.
type keyStore struct {
	place string
	// names returns the keys of a session's lock and of the session itself. ok is false if the store would refuse them.
	names func(id string) (lock, data string, ok bool)
	// present returns the keys that exist. With an error, further keys may exist. It is called by at most two
	// goroutines and applies its own timeout.
	present func(ctx context.Context, keys []string) (map[string]bool, error)
	// commands is the number of commands that present sends.
	commands int
	// report is called once when the store does not answer, and with a nil error when it does again.
	report func(error)
}

// poller polls a key store for all watches together: one goroutine with one request at a time, however many watches
// there are. It polls a session only while a request waits for it. So a watch knows nothing of the time before, and may
// miss a session that was open for a moment only.
//
// A missing key proves nothing: PHP may not lock its sessions, or keep them elsewhere. It counts once lock keys were
// seen in the store, and the session's own lock or data as well. So the poller also samples a few sessions of which
// neither was seen, although no request waits for them.
type poller struct {
	store keyStore
	asked atomic.Uint64 // commands sent
	wake  chan struct{} // a watch is due
	life  context.Context
	end   context.CancelFunc
	ended chan struct{}
	next  time.Time // when the next command may be sent; used by run only

	looking sync.Mutex // serializes Destroyed

	mu       sync.Mutex
	watches  map[*keyWatch]struct{} // that are polled
	samples  int                    // those of them for which no request waits
	failing  bool                   // the last request failed
	seed     maphash.Seed
	seen     sightings
	lastLock time.Time // when a lock key was last seen
}

const (
	// A session is polled after a quarter of the time that a request has waited for it, within these bounds.
	minAskPause = 2 * time.Millisecond
	maxAskPause = 25 * time.Millisecond
	// maxAskRate bounds the commands per second of all watches together.
	maxAskRate = 2000
	// maxAskKeys bounds the keys of one command.
	maxAskKeys = 100
	// maxSamples bounds the watches that are polled although no request waits.
	maxSamples = 4
	// losePatience is how long a store may fail to answer until a watch is lost: a lock that its script has outlived ends
	// then. It covers a server that restarts, or a machine that is busy.
	losePatience = 2 * time.Second
	// believeLocks is how long a lock that was seen is evidence that PHP locks its sessions here.
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

// Place names the servers.
func (p *poller) Place() string { return p.store.place }

// Asked returns the number of commands sent so far.
func (p *poller) Asked() uint64 { return p.asked.Load() }

// Close ends the polling.
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

// believes reports whether there is evidence that PHP locks sessions in the store and keeps the session of w there. The
// caller must hold the mutex.
func (p *poller) believes(w *keyWatch, now time.Time) bool {
	return p.locks(now) && p.seen.look(w.hash) != 0
}

// locks reports whether a lock key was seen recently. The caller must hold the mutex.
func (p *poller) locks(now time.Time) bool {
	return !p.lastLock.IsZero() && now.Sub(p.lastLock) < believeLocks
}

// run polls until Close.
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

// due returns the watches that are due, or nearly so, and the time until the next one is.
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

// ask polls as many of the watches as fit into one command, and returns the others.
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

// keysOf returns the keys of the first n watches, as many as fit into one command.
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
			continue // stopped in the meantime
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

// keyWatch is one request's watch over a lock key. The poller's mutex guards it.
type keyWatch struct {
	poller     *poller
	lock, data string
	hash       uint64
	changed    func(State)

	state    State
	answered bool      // its last poll got an answer
	seen     bool      // an answer has come since the watch was last reported lost
	missed   time.Time // when the first poll since the last answer failed; zero: none has
	due      time.Time // when it is polled next
	since    time.Time // when it was last wanted
	wanted   bool      // a request waits
	owed     bool      // changed is to be called with the answer to a request that is not sent yet
	asking   bool      // changed is to be called with the answer to the request in flight
	stopped  bool
}

// State returns the state as of the last answer.
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

// Asks returns true.
func (w *keyWatch) Asks() bool { return true }

// Prioritize polls at once and then repeatedly. Each further call polls at once, too.
func (w *keyWatch) Prioritize() {
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

// ask schedules polls of the session, from due on.
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

// leave ends the polls of the session.
func (w *keyWatch) leave() {
	p := w.poller
	if _, asks := p.watches[w]; asks && !w.wanted {
		p.samples--
	}
	delete(p.watches, w)
}

// take processes an answer.
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
		w.isAnswered()
		w.state, p.lastLock = Open, now
		p.seen.note(w.hash, false)
		return
	case err != nil:
		w.miss(now)
		return
	}
	w.isAnswered()
	w.absent(there[w.data], now)
	if w.asking && w.state != Closed {
		w.changed(w.state)
	}
}

// isAnswered notes that a poll got an answer.
func (w *keyWatch) isAnswered() { w.answered, w.seen, w.missed = true, true, time.Time{} }

// miss notes that a poll got no answer. What is owed to it is left to the next, unless that takes too long.
func (w *keyWatch) miss(now time.Time) {
	w.answered = false
	if w.missed.IsZero() {
		w.missed = now
	}
	if now.Sub(w.missed) >= losePatience {
		w.lose()
		return
	}
	w.owed = w.owed || w.asking
	w.due = now.Add(w.pause(now))
}

// absent notes that the lock key does not exist, and whether the session's data does.
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
			w.leave() // there is enough evidence now
		}
	}
}

// lose reports that the session's state is unknown for now: once, and to whoever asks.
func (w *keyWatch) lose() {
	if w.seen || w.asking {
		w.answered, w.seen = false, false
		w.changed(Unknown)
	}
}

// pause returns the time until the watch is polled again.
func (w *keyWatch) pause(now time.Time) time.Duration {
	return min(max(now.Sub(w.since)/4, minAskPause), maxAskPause)
}

// Destroyed looks for the session itself. PHP deletes it before it releases its lock.
func (w *keyWatch) Destroyed() bool {
	p := w.poller
	p.looking.Lock() // one request at a time, concurrently with run's
	defer p.looking.Unlock()
	p.asked.Add(uint64(p.store.commands))
	there, err := p.store.present(p.life, []string{w.data})
	return err == nil && !there[w.data]
}
