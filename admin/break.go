package admin

import (
	"net/http"

	"github.com/fpm-gate/fpm-gate/gate"
)

// delete breaks a lock: its holder keeps running without it, and the next waiter gets it. With terminate=true the
// holder's script is ended, and the lock with it. With since, as /locks has it, only that hold is meant.
func (h *lockHandler) delete(w http.ResponseWriter, r *http.Request) {
	// A misspelled value must not break the lock of a script that was to be ended.
	do := h.breakLock
	if terminate := r.URL.Query().Get("terminate"); terminate == "true" {
		do = h.terminateScript
	} else if terminate != "" && terminate != "false" {
		fail(w, http.StatusBadRequest, "terminate must be true or false")
		return
	}
	since := r.URL.Query().Get("since")
	h.withLock(w, r, func(w http.ResponseWriter, r *http.Request, l Lock) {
		if since != "" && since != l.Since { // the operator has seen another hold
			fail(w, http.StatusNotFound, "lock "+l.Key+" has been released; it may be another request's by now")
			return
		}
		do(w, r, l)
	})
}

// breakLock ends a lock within this process. A lock that another host holds is not in any of its managers. The one of a
// request that has got it since l was read, which takes up to askTimeout, is left alone.
func (h *lockHandler) breakLock(w http.ResponseWriter, r *http.Request, l Lock) {
	// A lock that was taken before a reload may be in another manager than its session's next one.
	for _, locks := range h.served().Locks {
		if locks.BreakHold(keyOf(l.Key), l.token) {
			h.log.Info("break requested by an operator", "key", l.Key[:8], "client", clientOf(r))
			reply(w, http.StatusOK, l)
			return
		}
	}
	notHere(w, l, "break it there")
}

// terminateScript ends the script that holds a lock.
func (h *lockHandler) terminateScript(w http.ResponseWriter, r *http.Request, l Lock) {
	by := h.holder(l)
	if by == nil { // another host's, or it has ended since withLock found it
		notHere(w, l, "end its script there")
		return
	}
	ended, err := gate.Terminate(by) // takes up to two seconds
	if err != nil {
		h.log.Warn("end of a script requested by an operator, in vain", "key", l.Key[:8], "client", clientOf(r),
			"error", err)
		fail(w, http.StatusConflict, "lock "+l.Key+": "+err.Error())
		return
	}
	h.log.Info("end of a script requested by an operator", "key", l.Key[:8], "client", clientOf(r), "by", ended)
	reply(w, http.StatusOK, Terminated{l, ended})
}

// Terminated is the response to DELETE /locks/{key}?terminate=true: a lock, and by what its holder's script has ended.
type Terminated struct {
	Lock
	EndedBy gate.Ending `json:"ended_by"`
}
