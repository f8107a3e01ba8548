package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// serve serves one request, from its head to its end request. The error says what went wrong; by then the web server
// has its answer, if it is still there.
func serve(g *shared, fr *fcgi.Request, slow *alarm) error {
	r := newRequest(g, fr)
	body := upload{request: r}
	defer r.leave(&body, slow)
	r.findSession()
	r.chooseRoute()
	slow.watch(r)
	if body.isSlow() {
		r.acquireWithBody(body.length)
	} else if err := r.acquire(r.Context()); err != nil {
		return r.answer(err)
	}
	if err := r.relay(r.release); err != nil { // releases before the web server gets the last bytes
		return r.answer(err)
	}
	r.ended(r.servedAs())
	r.logDone()
	return nil
}

// leave gives up what the request has taken, however far it has come: its locks, its place among the bodies, the alarm,
// and last the setup, which all of these use.
func (r *request) leave(body *upload, slow *alarm) {
	r.leaveSession()
	body.leave()
	slow.leave()
	r.setup.leave()
}

// newRequest begins the state of a request, which is in state.go.
func newRequest(g *shared, fr *fcgi.Request) *request {
	r := &request{Request: fr, gate: g, setup: g.enter(), status: lockNone}
	r.exchange.Request, r.exchange.Sending, r.exchange.Sent, r.exchange.Header = fr, r.sending, r.sent, r.readHeader
	r.head.read(fr.Params, r.setup.Param)
	if !r.head.isSafe() { // what a visitor has sent must not be lost
		fr.OutliveHangUp()
	}
	return r
}

// findSession finds the id that session_start() will use: by PHP's own rules, or in the configured param.
func (r *request) findSession() {
	rules := &r.setup.Session
	if id := r.head.param; len(id) > 0 && rules.Valid(id) {
		r.id = id
	} else if id, ok := rules.ID(r.head.cookie, r.head.query); ok {
		r.id = id
	}
	if r.id == nil {
		r.setup.misfits.sent(r.head.cookie)
	} else {
		r.key = r.setup.keyFor(r.id)
		r.setup.misfits.found()
	}
}

// chooseRoute finds the policy of the request: that of the first route that matches, else the gate's. A request with an
// unclear path gets the gate's, too.
func (r *request) chooseRoute() {
	r.policy, r.tally = &r.setup.Policy, &r.setup.tallies[0]
	if len(r.setup.Routes) == 0 {
		return
	}
	asked := r.head.asked()
	for i := range r.setup.Routes {
		route := &r.setup.Routes[i]
		switch route.match(&asked) {
		case matches:
			r.policy, r.route, r.tally = &route.Policy, route.Name, &r.setup.tallies[i+1]
			return
		case unclear: // the visitor must not choose between this route and later ones
			return
		}
	}
}

// acquire acquires the session's lock. If it returns nil, the request may go on, with the lock or, depending on status,
// without it.
func (r *request) acquire(ctx context.Context) error {
	if r.id == nil || r.policy.Mode == Off {
		r.gate.counters.none.Add(1)
		return nil
	}
	r.rotates.key = r.key
	h, policy := newHold(r, r.key, false)
	policy.MaxWait = max(policy.MaxWait-r.waited, 0) // waited is not 0 if the lock is acquired again
	if policy.MaxWait > 0 && r.exchange.Late == nil {
		policy.MaxWait += r.gate.pause.left(r.setup.Upstream.QueueTimeout) // of which the lock's holder waits, too
	}
	policy.LateExpiry = true
	if r.exchange.Late != nil {
		policy.MaxWaiters = 0 // it runs in any case; lateUploads bounds how many there are
	}
	entered := r.clock.enter(stageSession)
	stop := findRemoteHolder(r.setup.FindHolder, r.key, r.setup.SlowWait/2, &r.remoteHolder)
	lock, err := r.setup.Locks.Acquire(ctx, r.key, h, policy)
	stop()
	if err != nil {
		return r.notAcquired(err)
	}
	r.waited += lock.Waited()
	r.blockedBy = lock.BlockedBy()
	if r.replaced(lock, entered) {
		r.measureWait(OutcomeRedirected)
		return errReplaced
	}
	r.gate.counters.acquired.Add(1)
	if lock.Local() {
		r.gate.counters.local.Add(1) // the store logs its failure, once
	}
	r.status = lockRead
	if r.policy.Mode == Exclusive {
		r.hold, r.holds = h, []*hold{h}
		h.begin(lock, r.id)
		r.status = h.status()
	}
	r.measureWait(r.servedAs())
	r.logSlowWait()
	return nil
}

// acquireWithBody has the lock acquired when the body, of that length, has come.
func (r *request) acquireWithBody(length int64) {
	r.status = lockLater
	r.exchange.Late, r.exchange.ContentLength = r.acquireLate, length
}

// acquireLate acquires the lock of a request whose script runs when acquireLate has returned, in any case: PHP-FPM has
// its body, and would run the script with a part of it if its connection were closed.
func (r *request) acquireLate(ctx context.Context) {
	if err := r.acquire(ctx); err != nil {
		r.status = lockPassed
		r.gate.counters.passed.Add(1)
		if ctx.Err() == nil {
			r.logLine(hclog.Warn, "upload goes on without the lock of its session", err)
		}
	}
}

// replaced reports whether to send the request back for a new cookie, because its session id was replaced while it
// waited for lock, from entered on. If so, replaced releases the lock and waits until the response with the new cookie
// is sent.
func (r *request) replaced(lock *sessionlock.Lock, entered time.Time) bool {
	if r.policy.OnRotation == OnRotationPass || r.exchange.Late != nil || r.Left() {
		return false
	}
	rot, pause := r.gate.rotations.during(r.key, entered, r.head.target)
	if rot == nil || pause == settleTime && lock.Waited() == 0 || !comesBack(r.Params, &r.head, r.id, &r.setup.Session) {
		return false
	}
	timeout := time.NewTimer(r.policy.MaxWait - time.Since(entered))
	defer timeout.Stop()
	gone := r.Context().Done()
	if !rot.awaitReplaced(timeout.C, gone) || r.Left() {
		return false
	}
	r.gate.rotations.sendBack(rot, r.head.target)
	lock.Release()
	rot.awaitSent(pause, gone)
	return true
}

// notAcquired handles a wait that ended without the lock. It returns nil if the policy lets the request go on.
func (r *request) notAcquired(err error) error {
	if wait := (*sessionlock.WaitError)(nil); errors.As(err, &wait) {
		r.blockedBy = wait.BlockedBy
		r.waited += wait.Waited
	}
	tooLong := errors.Is(err, sessionlock.ErrMaxWait)
	switch {
	case r.policy.Observe && tooLong:
		r.gate.counters.observed.Add(1)
		r.logObserved()
	case r.policy.OnMaxWait == OnMaxWaitPass && tooLong:
		r.gate.counters.passed.Add(1)
		r.logSlowWait()
	case r.passStoreFailure() && errors.Is(err, sessionlock.ErrStore):
		r.gate.counters.passed.Add(1) // the store logs its failure, once
	default:
		r.measureWait(newVerdict(r, err).outcome)
		return err
	}
	r.status = lockPassed
	r.measureWait(r.servedAs())
	return nil
}

func (r *request) passStoreFailure() bool {
	return r.policy.Observe || r.policy.OnStoreFailure == OnStoreFailurePass
}

// measureWait records the wait for the lock, which has ended.
func (r *request) measureWait(outcome Outcome) {
	r.tally.meter.Waited(outcome, r.waited, &r.blockedBy)
}

// release releases the locks when the script has ended or can no longer be observed. A lock outlives its request if the
// script may continue to use its session.
func (r *request) release() {
	if r.follows {
		for _, h := range r.holds {
			h.end(HoldReleased, h.scriptName())
		}
		return
	}
	for _, h := range r.holds {
		h.watch.look()
		h.outliveResponse()
	}
	r.learn()
	r.compareSessions()
	for _, h := range r.holds {
		h.endWithRequest()
	}
}

// compareSessions counts and logs a script that used another session than the one whose lock it held, if its response
// has not said so.
func (r *request) compareSessions() {
	if r.hold != nil && !r.setsID && r.hold.watch.otherID() != "" {
		r.gate.counters.mismatched.Add(1)
		r.logOtherSession()
	}
}

// leaveSession ends the request's holds and watches, except those that outlive it.
func (r *request) leaveSession() {
	for _, h := range r.holds {
		h.endWithRequest()
		h.unwatch()
	}
	r.gate.rotations.leave(&r.rotates)
}

// relay sends the request to PHP-FPM and the response back. It calls release when the script has ended, before it sends
// the web server the end of the response: a browser that has its response never waits for its own lock.
func (r *request) relay(release func()) error {
	r.exchange.Ended = release
	r.exchange.AbandonAfter = r.policy.AbandonAfter
	if r.policy.terminatesAbandoned(r.setup) {
		r.exchange.AbandonAfter += maxTermination
		r.exchange.OnHangUp = r.abandoned
	}
	if r.mayFollow() {
		r.exchange.Follow = r.follow
	}
	for {
		r.clock.enter(stageConnection)
		err := r.setup.pool.RoundTrip(r.Context(), &r.exchange)
		if !errors.Is(err, errLockEnded) {
			r.followScript()
			return err
		}
		if err := r.acquireAgain(); err != nil {
			return err
		}
	}
}

// abandoned is called when the web server has hung up, by any goroutine: a script that does not end in time is ended.
func (r *request) abandoned() {
	if h := r.hold; h != nil {
		h.terminateAfter(r.policy.AbandonAfter, "abandon_after")
	}
}

// errLockEnded is returned by sending when the lock has ended.
var errLockEnded = errors.New("the lock ended while its request waited for a connection")

// sending is called when the request has got a connection to PHP-FPM. Its lock may have ended in the meantime.
// Otherwise the expiry of the lock starts, once the whole request is there.
func (r *request) sending() error {
	if r.exchange.Late == nil && r.hold != nil && r.hold.endedUnsent() {
		return errLockEnded
	}
	if r.hold != nil { // it may have become a local one meanwhile, or have got its lease
		r.status = r.hold.status()
	}
	if r.exchange.Late == nil && r.exchange.StdinWhole() {
		r.sent() // now, so that FPM_GATE_EXPIRES is known
	} else {
		r.clock.enter(stageOther) // until its body has come
	}
	r.exchange.Params = r.gateParams(r.scratch[:0])
	return nil
}

// sent is called when PHP-FPM has been sent all of the request, or is about to be.
func (r *request) sent() {
	r.clock.enter(stagePHP)
	if r.hold != nil {
		r.hold.startExpiry()
	}
}

// gateParams appends the params that inform PHP about the lock. They come after all others, so they win.
func (r *request) gateParams(b []byte) []byte {
	if r.head.foreign {
		b = r.overrideForeign(b)
	}
	b = fcgi.AppendPair(b, "FPM_GATE_LOCK", string(r.status))
	b = appendMilliseconds(b, "FPM_GATE_QUEUE_MS", r.clock.waited())
	if r.status == lockNone {
		return b
	}
	b = fcgi.AppendPair(b, "FPM_GATE_KEY", r.key.String())
	if r.status == lockLater {
		return b
	}
	b = appendMilliseconds(b, "FPM_GATE_WAIT_MS", r.waited)
	if r.status != lockHeld && r.status != lockLocal {
		return b
	}
	b = fcgi.AppendPair(b, "FPM_GATE_TOKEN", r.hold.lock.LeaseToken().String())
	return fcgi.AppendPair(b, "FPM_GATE_EXPIRES", strconv.FormatInt(floorUnix(r.earliestExpiry()), 10))
}

func appendMilliseconds(b []byte, name string, d time.Duration) []byte {
	return fcgi.AppendPair(b, name, strconv.FormatInt(d.Milliseconds(), 10))
}

// earliestExpiry is when the lock expires, or would if its expiry started now: it starts when the body is whole. The
// zero time if it has none.
func (r *request) earliestExpiry() time.Time {
	if expires := r.hold.lock.Expires(); !expires.IsZero() || r.policy.Expiry == 0 {
		return expires
	}
	return time.Now().Add(r.policy.Expiry)
}

// overrideForeign empties the params that a request has tried to set itself.
func (r *request) overrideForeign(b []byte) []byte {
	for name := range r.Params.All() {
		if bytes.HasPrefix(name, []byte(gatePrefix)) {
			b = fcgi.AppendPair(b, name, "")
		}
	}
	return b
}

// floorUnix returns t in whole Unix seconds, rounded down, so that the lock has not ended by then. A zero t gives 0.
func floorUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// acquireAgain replaces a lock that ended before PHP got the request. It waits at most for the rest of max_wait.
func (r *request) acquireAgain() error {
	r.hold.unwatch()
	r.hold, r.holds = nil, nil
	return r.acquire(r.Context())
}

// readHeader reads the header block of the response, for a new session id and for the header that releases the lock.
func (r *request) readHeader(h *fcgi.ResponseHeader) {
	r.clock.enter(stagePHP) // it answers before the body is whole, if it is not there already
	early := r.policy.ReleaseOn == ReleaseOnHeaders
	remove := false
	for name, value := range h.All() {
		switch {
		case isHeader(name, "Set-Cookie"):
			r.readCookie(value)
		case isHeader(name, releaseHeader):
			remove = true
			early = early || string(value) == "1"
		}
	}
	if remove {
		h.Remove(releaseHeader)
	}
	if r.policy.ServerTiming && r.id != nil {
		h.Add("Server-Timing", fmt.Sprintf(`fpm-gate;desc="session lock %s";dur=%.1f`, r.status, r.waited.Seconds()*1000))
	}
	if early {
		for _, h := range r.holds {
			h.endWithRequest()
		}
	}
}

// releaseHeader is the response header with which a script releases its lock early.
const releaseHeader = "FPM-Gate-Release"

// isHeader reports whether name is the header's name, in any case.
func isHeader(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

// readCookie takes the lock of a session id that the response sets, if it differs from the request's: once the browser
// has the new id, its requests would run concurrently with the rest of this script. No other request can know a new id,
// so its lock is free; if the id is in use, readCookie does not wait for it.
func (r *request) readCookie(setCookie []byte) {
	id, ok := r.setup.Session.FromSetCookie(setCookie)
	if !ok {
		r.setup.misfits.set(setCookie)
		return
	}
	r.setup.misfits.isSet()
	key := r.setup.keyFor(id)
	if r.hold != nil && key == r.key {
		return
	}
	r.setsID = true
	if r.policy.Mode != Exclusive || r.status == lockPassed || r.status == lockLater {
		return
	}
	if r.status == lockHeld {
		r.gate.rotations.rotate(&r.rotates, key)
	}
	h, policy := newHold(r, key, true)
	policy.MaxWait = 0
	lock, err := r.setup.Locks.Acquire(context.Background(), key, h, policy)
	if err == nil {
		r.holds = append(r.holds, h)
		h.begin(lock, id)
	}
}

// mayFollow reports whether the request's locks may have to last until its script has really ended. If PHP locks the
// session itself, a lock that ends with the response only costs a worker that waits.
func (r *request) mayFollow() bool {
	return r.policy.Mode == Exclusive && (!r.setup.PHPLocks || r.setup.watches())
}

// follow is called when the response has ended and the script may go on. It reports whether to await the end of the
// script, because a lock must last until then: PHP usually writes a session at the end of the script, and no watch
// shows when it does.
func (r *request) follow() bool {
	if !r.needsScript() {
		return false
	}
	r.compareSessions()
	r.outliving.Add(1) // for the request, so that no hold is the last one before all are counted
	defer r.outlivingEnds()
	for _, h := range r.holds {
		r.follows = h.outlive(true) || r.follows
	}
	return r.follows
}

// needsScript reports whether one of the locks has to last until the script has ended, should that go on. Over TCP
// nothing shows if it does; so where PHP locks the session, and no request waits for it, it is not followed.
func (r *request) needsScript() bool {
	at, _ := r.exchange.Serving()
	optional := r.setup.PHPLocks && r.setup.Workers != nil && at.Addr().Network != "unix"
	return slices.ContainsFunc(r.holds, func(h *hold) bool {
		if optional && !h.watch.isOutside() && !h.watch.hasWaiter() {
			return false
		}
		return h.isOn() && h.watch.needsScript()
	})
}

// followScript awaits in the background the end of a script that goes on after its response. Shutdown waits for it as
// for a request.
func (r *request) followScript() {
	if r.exchange.Follows() {
		r.gate.serving.Go(r.exchange.AwaitScript)
	}
}

// learn notes whether the script opened its session, and the session of an id that it has set. If it has set another
// id, nothing follows for the request's own: in strict mode PHP opens no session of an unknown id, and a visitor can
// send any id.
func (r *request) learn() {
	if r.exchange.Connected().IsZero() {
		return
	}
	for _, h := range r.holds {
		if h.isNew {
			h.watch.recordPlace()
		}
	}
	if r.hold != nil && r.hold.watch != nil && !r.setsID {
		r.hold.watch.recordPlace()
		r.gate.habits.learn(&r.head, r.hold.watch.last)
	}
}

// answer ends a request that PHP-FPM did not answer: with the answer that err calls for, if the web server is still
// there. It returns err if the conn cannot be used any further.
func (r *request) answer(err error) error {
	v := newVerdict(r, err)
	r.ended(v.outcome)
	r.logLine(v.level, v.log, err)
	if errors.Is(err, fcgi.ErrHungUp) {
		r.hintLostPost()
	}
	switch {
	case v.fail:
		r.Fail()
		return err
	case v.status == 0:
		return err
	}
	if err := r.Respond(v.answer(r, err)); err != nil {
		return fmt.Errorf("answer %d: %w", v.status, err)
	}
	return nil
}
