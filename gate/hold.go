package gate

import (
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// hold is the life of one lock: from its grant to its end. A request has one for its own session, and one for each
// other session id that its response sets.
//
// It ends once, by end, whatever comes first: the end of its request, its watch, its own expiry or loss, or the end of
// the gate. A script can continue to use its session after its response, with fastcgi_finish_request(). So a hold can
// outlive its request: until PHP closes the session, if that is watched, or until the script ends, if that is followed.
type hold struct {
	request *request
	key     sessionlock.Key
	isNew   bool              // the lock is of a session id that the response has set
	lock    *sessionlock.Lock // nil before begin
	watch   *watch            // over the session; nil: not watched

	mu          sync.Mutex // guards the fields below. Nothing is called with it held, so any caller may take it
	state       holdState
	outcome     HoldOutcome              // once it has ended
	late        *sessionlock.Description // what is needed of the request when it has ended; nil: nothing so far
	follows     bool                     // the gate awaits the end of the script, which ends the hold
	timers      []*time.Timer            // to terminate
	terminating bool                     // its script is being ended
}

// holdState is a stage in the life of a hold.
type holdState int

const (
	holdWanted   holdState = iota // the lock is not there yet
	holdOn                        // the request has the lock
	holdOutlives                  // the request has ended, or is about to, and the lock goes on
	holdEnded
)

// newHold returns a hold for r, and the policy with which to acquire its lock.
func newHold(r *request, key sessionlock.Key, isNew bool) (*hold, sessionlock.Policy) {
	h := &hold{request: r, key: key, isNew: isNew}
	p := r.policy.forLock(r.setup)
	if r.setup.SharedLocks { // only a shared store can fail
		p.HoldLocally = r.policy.OnStoreFailure == OnStoreFailureLocal && !r.policy.Observe
		p.OnLocal = h.logLocal
	}
	p.OnLoss = h.lost
	if r.setup.watches() && p.Mode == sessionlock.Exclusive && r.policy.ReleaseOn != ReleaseOnEnd {
		h.watch = newWatch(h, r.setup)
		p.OnWaiter = h.watch.want
	}
	return h, p
}

// forLock returns the part of the policy that the lock needs.
func (p *Policy) forLock(s *setup) sessionlock.Policy {
	lp := sessionlock.Policy{MaxWait: p.MaxWait, Expiry: p.Expiry, MaxWaiters: p.MaxWaiters}
	if p.terminates(s) {
		lp.Expiry += maxTermination
	}
	if p.Mode == Read {
		lp.Mode = sessionlock.Read
	}
	if p.Observe {
		lp.MaxWait = 0
	}
	return lp
}

// begin starts the hold with its granted lock. The session is watched from now on, before the request is sent, so that
// nothing is missed.
func (h *hold) begin(lock *sessionlock.Lock, id []byte) {
	h.mu.Lock()
	h.lock = lock
	ended := h.state == holdEnded // the lock was lost a moment ago
	if !ended {
		h.state = holdOn
	}
	h.mu.Unlock()
	if ended {
		h.measure(h.outcome, h.request.head.filename)
	}
	if h.isNew {
		h.startExpiry() // PHP-FPM has the request
	}
	h.watch.begin(id)
}

// startExpiry starts the expiry of the lock: PHP-FPM has all of the request.
func (h *hold) startExpiry() {
	h.lock.StartExpiry()
	if h.request.policy.terminates(h.request.setup) {
		h.terminateAfter(h.request.policy.Expiry, "expiry")
	}
}

// end ends the hold unless it has ended: it releases the lock and stops what has outlived the request. script is the
// file name of the hold's script.
func (h *hold) end(outcome HoldOutcome, script []byte) {
	if h.release(outcome, script) {
		h.over()
	}
}

// release is end for callers that must not block. It reports whether over must be called afterwards.
func (h *hold) release(outcome HoldOutcome, script []byte) (outlived bool) {
	h.mu.Lock()
	before := h.state
	if h.terminating && !outcome.isLoss() {
		outcome = HoldTerminated
	}
	if before != holdEnded {
		h.state, h.outcome = holdEnded, outcome
	}
	timers := h.timers
	h.timers = nil
	h.mu.Unlock()
	for _, t := range timers {
		t.Stop()
	}
	if before == holdWanted || before == holdEnded {
		return false
	}
	h.lock.Release()
	if err := h.lock.Err(); err != nil {
		outcome = lossOf(err) // the lock had ended by itself a moment before
	}
	h.measure(outcome, script)
	return before == holdOutlives
}

// lost is called, by a goroutine of the lock's, when the lock has ended by itself. The request may have ended, so lost
// must not read its params.
func (h *hold) lost(holder sessionlock.Description, err error) {
	r, outcome := h.request, lossOf(err)
	h.end(outcome, []byte(holder.Script))
	h.logLoss(holder, err)
	if outcome == HoldExpired && !h.isNew && r.policy.OnExpiry == OverdueAbort && !r.policy.Observe {
		r.exchange.Abort(sessionlock.ErrExpired)
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

// unseen is called when the session can no longer be seen or is not open. It must not block.
func (h *hold) unseen() {
	h.mu.Lock()
	lasts := h.state == holdOutlives && !h.follows
	h.mu.Unlock()
	if lasts { // nothing else would end it before its expiry
		h.endByWatch(HoldReleased)
	}
}

// endByWatch is end for calls by the watcher, during which the watcher must not be used.
func (h *hold) endByWatch(outcome HoldOutcome) {
	if h.release(outcome, h.scriptName()) {
		go h.over()
	}
}

// giveAway ends the hold of a script that has not opened its session.
func (h *hold) giveAway() { h.end(HoldGivenAway, h.request.head.filename) }

// isSessionless reports whether the script is known never to open its session.
func (h *hold) isSessionless() bool { return h.request.gate.habits.sessionless(&h.request.head) }

// mayOpenFor returns how long the script may still take to open its session.
func (h *hold) mayOpenFor() time.Duration {
	if h.isSessionless() {
		return 0
	}
	left := h.request.setup.OpenWithin
	if since := h.request.exchange.Connected(); !since.IsZero() {
		if granted := h.lock.Since(); granted.After(since) { // its body came slowly
			since = granted
		}
		left -= time.Since(since)
	}
	return left
}

// viewInWorker begins to look at the session in the worker of its script. It returns nil if that is not possible.
func (h *hold) viewInWorker(id []byte, closed func()) *sessionView {
	r := h.request
	if !r.setup.Workers.mayLookAny(r.setup.Upstream.Addrs) {
		return nil
	}
	script := r.gate.habits.keyOf(&r.head)
	v := &sessionView{
		script: r.useScript(), own: string(phpsession.LockName(id)), isNew: h.isNew, locks: r.setup.locks,
		closed: func(handler string) {
			if r.setup.locks(handler) || !r.setup.Reopens && !r.gate.habits.reopens(script) {
				closed()
			}
		},
		reopened:      func(handler string) { h.reopened(script, r.setup.locks(handler)) },
		closedOutside: h.watch.sawClose.Load,
	}
	v.begin()
	return v
}

// reopened is called when PHP has opened the session again, after it had closed it. The lock is free by then, unless
// the script was known for it.
func (h *hold) reopened(script scriptKey, locked bool) {
	if !locked {
		h.request.gate.habits.noteReopened(script)
	}
	if h.isNew || !h.isEnded() {
		return
	}
	h.request.gate.counters.reopened.Add(1)
	h.logReopened()
}

// Describe makes the hold the holder of its lock: it can still be looked at when it outlives its request.
func (h *hold) Describe() sessionlock.Description { return h.describe() }

// describe describes the request, which may be over.
func (h *hold) describe() sessionlock.Description {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late != nil {
		return *h.late
	}
	return h.request.Describe()
}

// outliveResponse lets the hold outlive its request if PHP may have the session open, until the session is closed or
// can no longer be seen.
func (h *hold) outliveResponse() {
	if h.request.HungUp() || !h.watch.mayBeOpen() || !h.outlive(false) {
		return
	}
	h.watch.prompt()
	if !h.watch.mayBeOpen() { // closed in the meantime, or no longer visible
		h.end(HoldReleased, h.scriptName())
	}
}

// outlive lets the hold outlive its request, with follows until the end of the script. It reports whether the hold
// does.
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
	return true
}

// endNow ends a hold that outlives its request: the gate ends.
func (h *hold) endNow() { h.end(HoldReleased, h.scriptName()) }

// over releases what a hold needed to outlive its request.
func (h *hold) over() {
	h.watch.stop()
	h.leave()
}

// enter registers the hold as one that outlives its request: its setup stays in use, and Shutdown ends the hold.
func (h *hold) enter() {
	r := h.request
	r.setup.users.Add(1)
	r.outliving.Add(1)
	r.gate.outliving.add(h)
}

// leave undoes enter. After the last of a request's holds, the gate no longer awaits the script.
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

// unwatch stops the watch of a hold whose request has ended, unless the hold outlives it.
func (h *hold) unwatch() {
	if !h.outlives() {
		h.watch.stop()
	}
}

// status returns what PHP is to see of the lock, which the request has got.
func (h *hold) status() lockStatus {
	if h.lock.Local() {
		return lockLocal
	}
	return lockHeld
}

// scriptName returns the file name of the script that holds the lock.
func (h *hold) scriptName() []byte {
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
func (h *hold) isEnded() bool  { return h.is(holdEnded) }

// endedUnsent reports whether the hold of a request that PHP has not got yet has ended: its lock has ended by itself,
// or another script has closed the session. A turn given away does not count.
func (h *hold) endedUnsent() bool {
	if h.lock.Err() != nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state == holdEnded && h.outcome != HoldGivenAway
}

// measure records the hold, which has ended.
func (h *hold) measure(outcome HoldOutcome, script []byte) {
	if outcome == HoldGivenAway {
		h.request.gate.counters.givenAway.Add(1)
	}
	if !h.isNew {
		h.request.tally.meter.Held(outcome, time.Since(h.lock.Since()), script)
	}
}
