package gate

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// serve is the way of one request, from its head to its end request. The error says how it ended, if not well;
// the web server has been told by then, as far as it can be.
func (g *Gate) serve(fr *fcgi.Request) error {
	r := newRequest(g, fr)
	defer r.to.leave()
	r.findSession()
	r.chooseRoute()
	if err := r.acquire(); err != nil {
		return r.answer(err)
	}
	defer r.leaveSession()
	if err := r.relay(); err != nil {
		return r.answer(err)
	}
	r.tally.count(r.servedAs())
	r.logDone()
	return nil
}

// request is one request on its way.
type request struct {
	*fcgi.Request
	gate   *Gate
	to     *setup // as it was when the request came
	head   head
	id     []byte // the session id that PHP will find; nil: none
	key    sessionlock.Key
	policy *Policy
	route  string
	tally  *tally // where requests of the route are counted

	outcome   outcome
	lock      *sessionlock.Lock // nil: none
	watch     *watched          // over the session of lock; nil: it is not watched
	more      []followed        // locks of session ids that the response has set
	setsID    bool              // the response has set another session id than the request's
	rotates   rotates
	hold      *hold                         // of lock, whose time is measured
	released  bool                          // the script has released its locks early
	after     atomic.Pointer[afterResponse] // nil: the script has ended with its response, as far as is known
	waited    time.Duration
	behind    sessionlock.Description   // who held the lock when the wait began
	elsewhere atomic.Pointer[Elsewhere] // who held it meanwhile in another process; nil: it is not known
	exch      fcgi.Exchange
	scratch   [320]byte // of params, to keep them off the heap
}

// outcome is what PHP is told of the lock, as FPM_GATE_LOCK.
type outcome string

const (
	lockHeld   outcome = "held"
	lockLocal  outcome = "local"  // held on this host only: the store fails
	lockNone   outcome = "none"   // there is no session, or the route wants no lock
	lockPassed outcome = "passed" // max wait is over, and the policy says to go on
	lockRead   outcome = "read"   // those ahead have been waited for
)

func newRequest(g *Gate, fr *fcgi.Request) *request {
	r := &request{Request: fr, gate: g, to: g.enter(), outcome: lockNone}
	r.exch.Request, r.exch.Sending, r.exch.Header, r.exch.Ended = fr, r.sending, r.readHeader, r.scriptEnded
	r.head.read(fr.Params, r.to.Param)
	return r
}

// findSession finds the id that session_start() will take: by PHP's own rules, or where the web server says.
func (r *request) findSession() {
	rules := &r.to.Session
	if id := r.head.param; len(id) > 0 && rules.Valid(id) {
		r.id = id
	} else if id, ok := rules.ID(r.head.cookie, r.head.query); ok {
		r.id = id
	}
	if r.id == nil {
		r.to.misfits.sent(r.head.cookie)
	} else {
		r.to.misfits.found()
	}
}

// chooseRoute finds the policy of the request: that of the first route that matches, else the gate's. The gate's is
// also that of a request whose path is unclear.
func (r *request) chooseRoute() {
	r.policy, r.tally = &r.to.Policy, &r.to.tallies[0]
	if len(r.to.Routes) == 0 {
		return
	}
	asked := r.head.asked()
	for i := range r.to.Routes {
		route := &r.to.Routes[i]
		switch route.match(&asked) {
		case matches:
			r.policy, r.route, r.tally = &route.Policy, route.Name, &r.to.tallies[i+1]
			return
		case unclear: // the visitor is not to choose between this route and the next ones
			return
		}
	}
}

// acquire takes the session's lock, at once or in its turn. Without an error the request may go on, with the
// lock or, as outcome says, without.
func (r *request) acquire() error {
	if r.id == nil || r.policy.Mode == Off {
		r.gate.counters.none.Add(1)
		return nil
	}
	r.key = r.to.keyFor(r.id)
	h := new(hold)
	policy := r.policy.forLock(r)
	policy.MaxWait = max(policy.MaxWait-r.waited, 0) // of a lock that is acquired again
	policy.LateExpiry = true
	policy.OnLoss = func(holder sessionlock.Description, err error) { r.lostLock(h, holder, err) }
	r.watch = r.watched(&policy, h)
	h.watch = r.watch
	entered := time.Now()
	stop := r.lookElsewhere()
	lock, err := r.to.Locks.Acquire(r.Context(), r.key, r, policy)
	stop()
	if err != nil {
		r.watch = nil
		return r.notAcquired(err)
	}
	r.waited += lock.Waited()
	r.behind = lock.Behind()
	if r.replaced(lock, entered) {
		r.watch = nil
		r.measureWait(EndRedirected)
		return errReplaced
	}
	r.lock, r.hold = lock, h
	r.outcome = lockHeld
	if r.policy.Mode == Read {
		r.outcome = lockRead
	}
	r.gate.counters.acquired.Add(1)
	if lock.Local() {
		if r.policy.Mode == Exclusive {
			r.outcome = lockLocal
		}
		r.gate.counters.local.Add(1) // that the store fails is logged once, by who watches it
	}
	r.beginHold()
	r.watch.begin(lock, r.id)
	r.measureWait(r.servedAs())
	r.logSlowWait()
	return nil
}

// notAcquired judges a wait that did not lead to the lock: some policies let the request go on all the same.
func (r *request) notAcquired(err error) error {
	if wait := (*sessionlock.WaitError)(nil); errors.As(err, &wait) {
		r.behind = wait.Behind
		r.waited += wait.Waited
	}
	tooLong := errors.Is(err, sessionlock.ErrMaxWait)
	switch {
	case r.policy.Observe && tooLong:
		r.gate.counters.observed.Add(1)
		r.logObserved()
	case r.policy.PassMaxWait && tooLong:
		r.gate.counters.passed.Add(1)
		r.logSlowWait()
	case r.passStoreFailure() && errors.Is(err, sessionlock.ErrStore):
		r.gate.counters.passed.Add(1) // that the store fails is logged once, by who watches it
	default:
		r.measureWait(r.verdict(err).end)
		return err
	}
	r.outcome = lockPassed
	r.measureWait(r.servedAs())
	return nil
}

func (r *request) passStoreFailure() bool {
	return r.policy.Observe || r.policy.StoreFailure == StoreFailurePass
}

// scriptEnded is called when the response is complete, or will never be. Mostly the script has ended then.
func (r *request) scriptEnded() {
	if after := r.after.Load(); after != nil {
		after.end()
		return
	}
	r.watch.outlive()
	for _, f := range r.more {
		f.watch.outlive()
	}
	r.learn()
	r.release()
}

// release gives the lock back, and those of session ids that the response has set; there may be none, or none any
// more. That of a script which goes on after its response is not touched.
func (r *request) release() {
	if r.after.Load() != nil {
		return
	}
	if r.lock != nil && !r.watch.outlives() {
		r.watch.setOver()
		r.lock.Release()
		r.endHold(holdEnd(r.lock.Err()), r.head.filename)
	}
	for _, f := range r.more {
		if !f.watch.outlives() {
			f.watch.setOver()
			f.lock.Release()
		}
	}
}

// leaveSession ends what the request has to do with sessions.
func (r *request) leaveSession() {
	r.release()
	r.watch.unwatch()
	r.gate.rotations.leave(r)
	for _, f := range r.more {
		f.watch.unwatch()
	}
}

// relay sends the request to PHP-FPM and its response back. The lock is released when the script has ended,
// before the web server learns it: a browser that has its response never waits for its own lock.
func (r *request) relay() error {
	r.exch.AbandonAfter = r.policy.AbandonAfter
	if r.mayFollow() {
		r.exch.Follow = r.outlives
	}
	for {
		err := r.to.pool.Exchange(r.Context(), &r.exch)
		if !errors.Is(err, errLockEnded) {
			r.followScript()
			return err
		}
		if err := r.acquireAgain(); err != nil {
			return err
		}
	}
}

// errLockEnded is returned by sending when the lock has ended.
var errLockEnded = errors.New("the lock ended while its request waited for a connection")

// sending is called when there is a connection to PHP-FPM for the request. Its lock may have ended in the meantime;
// else its expiry starts, where all of the request is there.
func (r *request) sending() error {
	r.exch.Sent = nil
	if r.lock != nil {
		if r.lock.Err() != nil || r.watch.closedEarly() {
			return errLockEnded
		}
		r.exch.Sent = r.lock.StartExpiry
		if r.exch.StdinWhole() {
			r.lock.StartExpiry() // before PHP is told when it ends
		}
	}
	r.exch.Params = r.gateParams(r.scratch[:0])
	return nil
}

// acquireAgain acquires the lock in the place of one that ended before PHP got the request, in what is left of max
// wait.
func (r *request) acquireAgain() error {
	r.watch.unwatch()
	r.lock, r.watch = nil, nil
	return r.acquire()
}

// readHeader reads the header block of the response: for a session id that changes, and for the script's wish
// to release its lock early.
func (r *request) readHeader(h *fcgi.ResponseHeader) {
	early := r.policy.AtHeaders
	remove := false
	for name, value := range h.All() {
		switch {
		case isHeader(name, "Set-Cookie"):
			r.follow(value)
		case isHeader(name, releaseHeader):
			remove = true
			early = early || string(value) == "1"
		}
	}
	if remove {
		h.Remove(releaseHeader)
	}
	if r.policy.ServerTiming && r.id != nil {
		h.Add("Server-Timing", fmt.Sprintf(`fpm-gate;desc="session lock %s";dur=%.1f`, r.outcome, r.waited.Seconds()*1000))
	}
	if early {
		r.release()
		r.released = true
	}
}

// releaseHeader is the response header by which a script releases its lock.
const releaseHeader = "FPM-Gate-Release"

// follow takes the lock of the session id that the response sets, if it is another one than the request's:
// from the moment that the browser has it, its requests meet the rest of this script there. Nobody can know a
// new id before, so there is no wait for its lock; an id that is in use is left to those who use it.
func (r *request) follow(setCookie []byte) {
	id, ok := r.to.Session.FromSetCookie(setCookie)
	if !ok {
		r.to.misfits.set(setCookie)
		return
	}
	r.to.misfits.found()
	key := r.to.keyFor(id)
	if r.lock != nil && key == r.key {
		return
	}
	r.setsID = true
	if r.policy.Mode != Exclusive || r.outcome == lockPassed {
		return
	}
	r.gate.rotations.rotate(r, key)
	policy := r.policy.forLock(r)
	watch := r.watched(&policy, nil)
	policy.MaxWait, policy.OnLoss = 0, func(holder sessionlock.Description, err error) {
		r.logLoss(key, holder, err)
		watch.lost()
	}
	policy.OnLocal = r.logLocal(key)
	lock, err := r.to.Locks.Acquire(context.Background(), key, r, policy)
	if err == nil {
		watch.beginOpen(lock, id)
		r.more = append(r.more, followed{lock, watch})
	}
}

// followed is the lock of a session id that the response has set.
type followed struct {
	lock  *sessionlock.Lock
	watch *watched // nil: it is not watched
}

// lostLock is called, by a goroutine of the lock's, when a lock ends before the request does. The request may have
// ended too by now: its params are not to be read any more.
func (r *request) lostLock(h *hold, holder sessionlock.Description, err error) {
	end := holdEnd(err)
	h.measure(r.tally, end, []byte(holder.Script))
	r.logLoss(r.key, holder, err)
	h.watch.lost()
	if after := r.after.Load(); after != nil {
		after.end()
	}
	if end == HoldExpired && r.policy.AbortExpired && !r.policy.Observe {
		r.exch.Abort(sessionlock.ErrExpired)
	}
}

// forLock is the part of the policy that the lock itself needs.
func (p *Policy) forLock(r *request) sessionlock.Policy {
	lp := sessionlock.Policy{MaxWait: p.MaxWait, Expiry: p.Expiry, MaxWaiters: p.MaxWaiters}
	if r.to.SharedLocks { // no other store fails
		lp.HoldLocally, lp.OnLocal = p.StoreFailure == StoreFailureLocal && !p.Observe, r.logLocal(r.key)
	}
	if p.Mode == Read {
		lp.Mode = sessionlock.Read
	}
	if p.Observe {
		lp.MaxWait = 0
	}
	return lp
}

// Describe is what an operator sees of the request while it holds or waits for the lock.
func (r *request) Describe() sessionlock.Description {
	return sessionlock.Description{
		Realm:  r.to.Realm,
		Gate:   r.to.Name,
		Route:  r.route,
		Method: string(r.head.method),
		Path:   pathOnly(r.head.target),
		Script: string(r.head.filename),
	}
}
