package gate

import (
	"errors"

	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Describe makes the hold the holder of its lock: it can still be looked at when it outlives its request.
func (h *hold) Describe() sessionlock.Description { return h.describe() }

// ErrNoScript is returned when no script runs for the holder of a lock: its request waits for a connection to PHP-FPM,
// or is over.
var ErrNoScript = errors.New("no script of it runs now")

// errNoWorkers is returned where workers are not looked at.
var errNoWorkers = errors.New(`the gate does not look at PHP-FPM's workers; see session { watch = "auto" }`)

// Activity returns what the script of a lock's holder does now, for an operator: see sessionlock.Manager.Holder. The
// session's id is left out. The error is ErrNoScript if none runs, and else one of package phpworker.
func Activity(by sessionlock.Holder) (phpworker.Activity, error) {
	h, ok := by.(*hold)
	if !ok {
		return phpworker.Activity{}, ErrNoScript
	}
	a, err := h.activity()
	a.Session.ID = ""
	return a, err
}

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
	if _, err := h.activity(); err != nil {
		return "", err
	}
	return h.terminate(byOperator)
}

// activity looks at the worker of the hold's request. The worker is found anew, so that an operator sees the reason if
// it cannot be.
func (h *hold) activity() (a phpworker.Activity, err error) {
	workers := h.request.setup.Workers
	if workers == nil {
		return a, errNoWorkers
	}
	at, runs := h.request.exchange.Serving()
	if !runs {
		return a, ErrNoScript
	}
	conn, err := at.SyscallConn()
	if err != nil {
		return a, err
	}
	if !at.While(func() { a, err = workers.activity(conn) }) {
		err = ErrNoScript
	}
	return a, err
}
