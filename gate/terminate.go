package gate

import (
	"errors"
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// A script that keeps its lock for too long keeps PHP's own lock too, if its handler has one: to hand on the gate's
// lock alone does not free the session. So the script can be ended. First PHP ends it as at max_execution_time, with
// its own error page, and gives back whatever lock its handler has. A script that is deaf to that, as in a blocking
// read of a socket, loses its worker: PHP-FPM starts another one.

// maxTermination bounds how long a lock is held beyond its expiry while its script is ended; lastWord is the part of it
// in which the gate gives up, before the lock ends by itself.
const (
	maxTermination = 2 * time.Second
	lastWord       = 100 * time.Millisecond
)

// terminationPause is the pause between two looks at whether a script has ended.
const terminationPause = 2 * time.Millisecond

// termination is the end of one hold's script, by the gate.
type termination struct {
	hold   *hold
	script *phpScript
	reason string    // for the log: what has passed
	giveUp time.Time // when the lock ends whatever becomes of the script
	found  bool      // its worker is known
}

// errScriptOver is returned when there is no script to be ended any longer.
var errScriptOver = errors.New("the script has ended")

// Ending is by what a script has ended that was to be ended.
type Ending string

// The values of Ending.
const (
	EndedByLimit  Ending = "limit"  // PHP's own time limit
	EndedByTerm   Ending = "term"   // SIGTERM, with its worker
	EndedByItself Ending = "itself" // before anything was sent, or it had closed its session
)

// Terminate ends the script of a lock's holder, as an expiry does with on_expiry = "terminate", waits for that, two
// seconds at most, and returns by what it has ended. The error is ErrNoScript if there is none, or if it is being ended
// already. Where the worker cannot be looked at or signaled, the error has the reason, and the request keeps its lock.
// Where the script goes on after both signals, the error says so, and the lock is free.
func Terminate(by sessionlock.Holder) (Ending, error) {
	h, ok := by.(*hold)
	switch {
	case !ok:
		return "", ErrNoScript
	case h.request.setup.Workers == nil:
		return "", errNoWorkers
	}
	if _, runs := h.request.exchange.Serving(); !runs {
		return "", ErrNoScript
	}
	if _, err := h.request.setup.Workers.activity(&h.request.exchange); err != nil {
		return "", err
	}
	return h.terminate(byOperator)
}

// terminate ends the script of a hold, unless the hold has ended or its script is being ended already. Without the
// rights to end it, an operator gets the error and nothing changes; otherwise the request goes on without the lock.
func (h *hold) terminate(reason string) (Ending, error) {
	if !h.beginTermination() {
		return "", ErrNoScript
	}
	h.request.byOperator.Store(reason == byOperator)
	t := &termination{hold: h, script: h.request.useScript(), reason: reason}
	t.giveUp = time.Now().Add(maxTermination - lastWord)
	defer t.script.leave()
	t.script.retry()
	t.script.workers.lookAt(t.script)
	err := t.send(func(w phpworker.Worker) error { return w.Interrupt("") })
	if err == nil && t.awaitEnd(time.Now().Add(h.request.policy.TerminateGrace)) {
		return t.done(EndedByLimit), nil
	}
	if err == nil || phpworker.Temporary(err) {
		err = t.send(t.kill)
	}
	switch {
	case errors.Is(err, errScriptOver):
		return EndedByItself, nil
	case err == nil && t.awaitEnd(t.giveUp):
		return t.done(EndedByTerm), nil
	case t.isPowerless(err):
		return "", t.letGo(err)
	}
	return "", t.cutOff(err)
}

// retry has the worker searched again, whatever kept it from being found before: a helper may be there by now.
func (s *phpScript) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed, s.again = nil, time.Time{}
}

// done counts and logs the end of the script.
func (t *termination) done(by Ending) Ending {
	c, text := &t.hold.request.gate.counters.interrupted, "PHP's time limit"
	if by == EndedByTerm {
		c, text = &t.hold.request.gate.counters.terminated, "SIGTERM"
	}
	c.Add(1)
	_ = t.hold.request.setup.power.check() // it may have lacked something before
	t.hold.logTerminated(t.reason, text)
	return by
}

// cutOff ends the request, and with it the lock, of a script that could be reached and goes on nevertheless.
func (t *termination) cutOff(err error) error {
	if err == nil {
		err = errDeaf
	}
	h := t.hold
	h.request.gate.counters.unterminated.Add(1)
	h.logNotTerminated(t.reason, err)
	h.end(HoldExpired, h.scriptName())
	h.request.exchange.Abort(errOverdue)
	return fmt.Errorf("%w, but its lock is free and its request is answered: %w", errOverdue, err)
}

// errDeaf is why a script could not be ended whose worker got both signals.
var errDeaf = errors.New("its worker goes on after PHP's time limit and SIGTERM")

// isPowerless reports whether the gate cannot end the script at all: its worker cannot be found, or not be signaled.
func (t *termination) isPowerless(err error) bool {
	return !t.found || errors.Is(err, phpworker.ErrRights) || errors.Is(err, phpworker.ErrHelper)
}

// letGo leaves a script alone that the gate cannot end. An operator's request changes nothing; otherwise the request
// goes on without its lock, as with "release".
func (t *termination) letGo(err error) error {
	h := t.hold
	if err == nil {
		err = phpworker.ErrWaiting
	}
	h.request.byOperator.Store(false)
	h.mu.Lock()
	h.terminating = false
	h.request.ending.Store(false)
	h.mu.Unlock()
	if t.reason == byOperator {
		return err
	}
	h.request.gate.counters.unterminated.Add(1)
	h.logPowerless(t.reason, err)
	h.end(HoldExpired, h.scriptName())
	return err
}

// errOverdue is the cause of an abort of a request whose script could not be ended.
var errOverdue = errors.New("the script could not be ended")

// send has a worker signaled as soon as it is found, unless the script has ended.
func (t *termination) send(signal func(phpworker.Worker) error) error {
	for {
		at, worker, err := t.script.find()
		switch {
		case t.hold.isEnded():
			return errScriptOver
		case err != nil:
			return err
		case worker != nil:
			t.found = true
			if !at.While(func() { err = signal(worker) }) {
				err = errScriptOver
			}
			if err == nil || !phpworker.Temporary(err) && !errors.Is(err, errScriptOver) {
				return err
			}
		}
		if time.Now().After(t.giveUp) {
			if err == nil {
				err = phpworker.ErrWaiting // no worker was found so far
			}
			return err
		}
		time.Sleep(terminationPause)
	}
}

// kill ends a worker. The lock of a session that it had open is left behind where it is no lock of the kernel's: it is
// removed before the request ends, and with it the gate's lock.
func (t *termination) kill(worker phpworker.Worker) error {
	r := t.hold.request
	session, readErr := worker.Session()
	r.killed.Store(true)
	if err := worker.Terminate(""); err != nil {
		if !errors.Is(err, phpworker.ErrHelper) { // which may have done it all the same
			r.killed.Store(false)
		}
		return err
	}
	if readErr == nil && session.Status == phpworker.Active && r.setup.Unlock != nil {
		r.setup.Unlock(session.Handler, session.ID)
	}
	return nil
}

// awaitEnd reports whether the hold has ended by a time: its script has, or PHP has closed the session.
func (t *termination) awaitEnd(by time.Time) bool {
	for !t.hold.isEnded() {
		if time.Now().After(by) {
			return false
		}
		time.Sleep(terminationPause)
		t.script.look()
	}
	return true
}

// terminates reports whether the script of a lock that expires is ended.
func (p *Policy) terminates(s *setup) bool {
	return p.OnExpiry == OverdueTerminate && !p.Observe && s.Workers != nil
}

// terminatesAbandoned reports whether a script is ended whose web server has hung up.
func (p *Policy) terminatesAbandoned(s *setup) bool {
	return p.OnAbandon == OverdueTerminate && !p.Observe && s.Workers != nil
}

// terminateAfter ends the script if the hold lasts for so long.
func (h *hold) terminateAfter(d time.Duration, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != holdEnded {
		h.timers = append(h.timers, time.AfterFunc(d, func() { _, _ = h.terminate(reason) }))
	}
}

// beginTermination reports whether the script of the hold is to be ended now. A request's holds share one script. From
// then on the hold can be described after its request has ended.
func (h *hold) beginTermination() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.terminating || h.state != holdOn && h.state != holdOutlives {
		return false
	}
	h.terminating = h.request.ending.CompareAndSwap(false, true)
	if h.terminating && h.late == nil {
		d := h.request.Describe() // the request ends after its hold, which h.mu keeps from ending
		h.late = &d
	}
	return h.terminating
}
