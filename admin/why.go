package admin

import (
	"net/http"

	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// Why is the response to GET /locks/{key}/why: a lock with what its holder's script does at this moment.
type Why struct {
	Lock
	Worker  *Worker `json:"worker"`  // null: it cannot be looked at
	Problem string  `json:"problem"` // why not
}

// Worker is the PHP-FPM worker that runs a script.
type Worker struct {
	PID     int    `json:"pid"`
	PHP     string `json:"php"`     // its version; "": unknown
	State   string `json:"state"`   // such as running or sleeping
	Syscall string `json:"syscall"` // that it is in; "": none, or unknown
	Target  string `json:"target"`  // what the system call waits for, such as 10.0.0.7:3306; "": nothing, or unknown
	CPUMS   int64  `json:"cpu_ms"`  // of the process, for all its requests

	Session string `json:"session"` // active, none, disabled or unknown
	Handler string `json:"handler"` // session.save_handler
	File    string `json:"file"`    // where session_start() was called; "": unknown, or PHP before 8.3
	Line    int    `json:"line"`
}

func (h *lockHandler) getWhy(w http.ResponseWriter, r *http.Request) { h.withLock(w, r, h.why) }

// why answers what the holder of a lock does.
func (h *lockHandler) why(w http.ResponseWriter, r *http.Request, l Lock) {
	by := h.holder(l)
	if by == nil {
		notHere(w, l, "ask there")
		return
	}
	answer := Why{Lock: l}
	if seen, err := gate.Activity(by); err != nil {
		answer.Problem = err.Error()
	} else {
		answer.Worker = workerOf(seen)
	}
	reply(w, http.StatusOK, answer)
}

func workerOf(seen phpworker.Activity) *Worker {
	return &Worker{
		PID: seen.PID, PHP: seen.Version, State: seen.State, Syscall: seen.Syscall, Target: seen.Target,
		CPUMS: seen.CPU.Milliseconds(), Session: seen.Session.Status.String(), Handler: seen.Session.Handler,
		File: seen.Session.StartedFile, Line: seen.Session.StartedLine,
	}
}
