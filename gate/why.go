package gate

import (
	"errors"
	"regexp"
	"strings"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// ErrNoScript is returned when no script runs for the holder of a lock: its request waits for a connection to PHP-FPM,
// or is over.
var ErrNoScript = errors.New("no script of it runs now")

// Activity returns what the script of a lock's holder does now, for an operator: see sessionlock.Manager.Holder. The
// session's id is left out. The error is ErrNoScript if none runs, and else one of package phpworker.
func Activity(by sessionlock.Holder) (phpworker.Activity, error) {
	h, ok := by.(*hold)
	if !ok {
		return phpworker.Activity{}, ErrNoScript
	}
	return h.request.setup.Workers.activity(&h.request.exchange)
}

// activity looks at the worker of an exchange. The worker is found anew, so that an operator sees the reason if it
// cannot be. The session's id is left out. Without workers the error is errNoWorkers.
func (w *Workers) activity(x *fcgi.Exchange) (a phpworker.Activity, err error) {
	if w == nil {
		return a, errNoWorkers
	}
	at, runs := x.Serving()
	if !runs {
		return a, ErrNoScript
	}
	conn, err := at.SyscallConn()
	if err != nil {
		return a, err
	}
	a, err = w.activityAt(conn) // while the request may end: a helper that hangs must not hold it up
	if !at.IsNow() {
		return phpworker.Activity{}, ErrNoScript
	}
	a.Session.ID, a.Target = "", withoutID(a.Target)
	return a, err
}

// longName finds what may be a session id in the last segment of a path: PHP's have 22 characters at least.
var longName = regexp.MustCompile(`[0-9A-Za-z,-]{22,}[^/]*$`)

// withoutID hides what may be a session id in the name of a file that a script waits for: a file of a session has it as
// its name.
func withoutID(target string) string {
	if !strings.HasPrefix(target, "/") {
		return target
	}
	return longName.ReplaceAllString(target, "...")
}
