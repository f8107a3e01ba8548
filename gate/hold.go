package gate

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// hold is the life of one lock: from its grant to its end. A request has one for its own session, and one for each
// other session id that its response sets.
//
// It ends once, by end, whoever comes first: its request, its watch, its own expiry or loss, or the end of the gate. As
// a script may go on with its session after its response, as after fastcgi_finish_request(), a hold can outlive its
// request: until PHP closes the session, where that is watched, or until the script has ended, where that is followed.
type hold struct {
	request *request
	key     sessionlock.Key
	isNew   bool              // the lock is that of a session id which the response has set
	lock    *sessionlock.Lock // nil before begin
	watch   *watch            // over the session; nil: it is not watched

	mu      sync.Mutex // guards the following. Nothing is called with it held, so any caller may take it
	state   holdState
	outcome HoldOutcome              // of a hold that has ended
	late    *sessionlock.Description // of a hold that outlives its request, whose memory may be gone; else nil
	follows bool                     // the end of its script is awaited: it lasts until then at most
}

// holdState is how far a hold is in its life.
type holdState int

const (
	holdWanted   holdState = iota // the lock is not there yet
	holdOn                        // the request has the lock
	holdOutlives                  // the request is over, or almost, and the lock goes on
	holdEnded
)

// newHold prepares the hold of a lock for r, and the policy by which the lock is to be acquired.
func newHold(r *request, key sessionlock.Key, isNew bool) (*hold, sessionlock.Policy) {
	h := &hold{request: r, key: key, isNew: isNew}
	p := r.policy.forLock()
	if r.setup.SharedLocks { // no other store fails
		p.HoldLocally = r.policy.StoreFailure == StoreFailureLocal && !r.policy.Observe
		p.OnLocal = func(holder sessionlock.Description) { r.logLocal(key, holder) }
	}
	p.OnLoss = h.lost
	if r.setup.Watcher != nil && p.Mode == sessionlock.Exclusive {
		h.watch = newWatch(h, r.setup)
		p.OnWaiter = h.watch.want
	}
	return h, p
}

// begin begins the hold with the lock that was granted. The session is watched from now on: before the request is sent,
// so that nothing is missed.
func (h *hold) begin(lock *sessionlock.Lock, id []byte) {
	h.mu.Lock()
	h.lock = lock
	ended := h.state == holdEnded // by its loss, a moment ago
	if !ended {
		h.state = holdOn
	}
	h.mu.Unlock()
	if ended {
		h.measure(h.outcome, h.request.head.filename)
	}
	h.watch.begin(id)
}

// end ends the hold, unless it has ended: the lock is free, and what has outlived the request is over. Script is the
// file name of the hold's script.
func (h *hold) end(outcome HoldOutcome, script []byte) {
	if h.release(outcome, script) {
		h.over()
	}
}

// release is end for callers that must not block. It reports whether over is still to be called.
func (h *hold) release(outcome HoldOutcome, script []byte) (outlived bool) {
	h.mu.Lock()
	before := h.state
	if before != holdEnded {
		h.state, h.outcome = holdEnded, outcome
	}
	h.mu.Unlock()
	if before == holdWanted || before == holdEnded {
		return false
	}
	h.lock.Release()
	if err := h.lock.Err(); err != nil {
		outcome = lossOf(err) // it had ended by itself a moment before
	}
	h.measure(outcome, script)
	return before == holdOutlives
}

// lost is called, by a goroutine of the lock's, when the lock has ended by itself. The request may be over by now: its
// params are not to be read.
func (h *hold) lost(holder sessionlock.Description, err error) {
	r, outcome := h.request, lossOf(err)
	h.end(outcome, []byte(holder.Script))
	r.logLoss(h.key, holder, err)
	if outcome == HoldExpired && !h.isNew && r.policy.AbortExpired && !r.policy.Observe {
		r.exch.Abort(sessionlock.ErrExpired)
	}
}

// closed is called when PHP has closed the session. It must not block.
func (h *hold) closed() {
	h.mu.Lock()
	byItself := h.state == holdEnded && h.outcome.isLoss()
	note := !h.isNew && (h.state == holdOn || byItself)
	h.mu.Unlock()
	if note {
		h.request.gate.rotations.sawClose(&h.request.rotates, h.watch.destroyed)
	}
	h.endByWatch(HoldClosed)
}

// unseen is called when the session can no longer be seen, or is not open. It must not block.
func (h *hold) unseen() {
	h.mu.Lock()
	lasts := h.state == holdOutlives && !h.follows
	h.mu.Unlock()
	if lasts { // nothing else would end it before its expiry
		h.endByWatch(HoldReleased)
	}
}

// endByWatch is end for the watcher, which must not be used meanwhile.
func (h *hold) endByWatch(outcome HoldOutcome) {
	if h.release(outcome, h.script()) {
		go h.over()
	}
}

// giveAway gives the turn of a script away that has not opened its session.
func (h *hold) giveAway() { h.end(HoldGivenAway, h.request.head.filename) }

// isSessionless reports whether the script never opens its session, as far as is known.
func (h *hold) isSessionless() bool { return h.request.gate.habits.sessionless(&h.request.head) }

// mayOpenFor is how long the script may still take to open its session.
func (h *hold) mayOpenFor() time.Duration {
	if h.isSessionless() {
		return 0
	}
	left := h.request.setup.OpenWithin
	if since := h.request.exch.Connected(); !since.IsZero() {
		left -= time.Since(since)
	}
	return left
}

// outliveResponse has the hold go on after its request if PHP may have the session open: until it is closed, or can no
// longer be seen.
func (h *hold) outliveResponse() {
	if h.request.HungUp() || !h.watch.mayBeOpen() || !h.outlive(false) {
		return
	}
	h.watch.prompt()
	if !h.watch.mayBeOpen() { // it has been closed meanwhile, or can no longer be seen
		h.end(HoldReleased, h.script())
	}
}

// outlive has the hold go on after its request, and reports whether it does: to the end of its script, if follows.
func (h *hold) outlive(follows bool) bool {
	d := h.request.Describe()
	h.watch.keepTurn()
	h.enter()
	h.mu.Lock()
	on := h.state == holdOn
	if on {
		h.state, h.late, h.follows = holdOutlives, &d, follows
	}
	h.mu.Unlock()
	if !on {
		h.leave()
		return false
	}
	h.lock.HoldFor(described(d))
	return true
}

// described holds a lock for a request that is over.
type described sessionlock.Description

func (d described) Describe() sessionlock.Description { return sessionlock.Description(d) }

// over ends what a hold needed that has outlived its request.
func (h *hold) over() {
	h.watch.stop()
	h.leave()
}

// enter counts the hold as one that goes on after its request: its options stay in use, and a shutdown ends it.
func (h *hold) enter() {
	r := h.request
	r.setup.users.Add(1)
	r.outliving.Add(1)
	r.gate.outliving.add(h)
}

// leave undoes enter. Once none of the request's holds goes on, its script is no longer awaited.
func (h *hold) leave() {
	r := h.request
	r.gate.outliving.remove(h)
	r.outlivingEnds()
	r.setup.leave()
}

// endWithRequest ends the hold, unless it outlives its request.
func (h *hold) endWithRequest() {
	if !h.outlives() {
		h.end(HoldReleased, h.request.head.filename)
	}
}

// unwatch ends the watching of a hold whose request is over, unless it goes on.
func (h *hold) unwatch() {
	if !h.outlives() {
		h.watch.stop()
	}
}

// script is the file name of the script that holds the lock.
func (h *hold) script() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late != nil {
		return []byte(h.late.Script)
	}
	return h.request.head.filename
}

func (h *hold) is(s holdState) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state == s
}

func (h *hold) isOn() bool     { return h.is(holdOn) }
func (h *hold) outlives() bool { return h.is(holdOutlives) }

// endedUnsent reports whether the hold has ended though PHP has not got its request: its lock has ended by itself, or
// another script has closed the session. A turn that was given away is not among that.
func (h *hold) endedUnsent() bool {
	if h.lock.Err() != nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state == holdEnded && h.outcome != HoldGivenAway
}

// measure measures the hold, which has ended.
func (h *hold) measure(outcome HoldOutcome, script []byte) {
	if outcome == HoldGivenAway {
		h.request.gate.counters.givenAway.Add(1)
	}
	if !h.isNew {
		h.request.tally.meter.Held(outcome, time.Since(h.lock.Since()), script)
	}
}

// outliving are the holds that go on without their requests.
type outliving struct {
	mu  sync.Mutex
	all map[*hold]struct{}
}

func (o *outliving) add(h *hold) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[*hold]struct{})
	}
	o.all[h] = struct{}{}
}

func (o *outliving) remove(h *hold) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, h)
}

// end ends them all: the gate is not going to hand them on.
func (o *outliving) end() {
	o.mu.Lock()
	all := slices.Collect(maps.Keys(o.all))
	o.mu.Unlock()
	for _, h := range all {
		h.end(HoldReleased, h.script())
	}
}
