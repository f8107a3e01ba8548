package admin

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// LocksPage is the response to GET /locks, and the data of the event "locks".
type LocksPage struct {
	At    string `json:"at"`    // RFC 3339, like all times here
	Host  string `json:"host"`  // the host that answers
	Locks []Lock `json:"locks"` // held longest first

	Pause    *PausePage `json:"pause,omitempty"`    // the gates that are paused
	Warnings []string   `json:"warnings,omitempty"` // what an operator should mend in the config or its surroundings
}

// Lock is a lock that is held or waited for.
type Lock struct {
	Key     string   `json:"key"`
	Realm   string   `json:"realm"`
	Gate    string   `json:"gate"`    // the holder's, or the first waiter's
	Held    bool     `json:"held"`    // by this process
	Holder  Request  `json:"holder"`  // of a holder on another host, only gate and host are known
	Since   string   `json:"since"`   // "": the lock is free
	Expires string   `json:"expires"` // "": never, or unknown because the lock is not held here
	HeldMS  int64    `json:"held_ms"`
	Waiters []Waiter `json:"waiters"` // on this host, first in line first

	token sessionlock.Token // of this hold, if Held
}

// Request describes a request that holds a lock or waits for it.
type Request struct {
	Gate   string `json:"gate"`
	Route  string `json:"route"`
	Method string `json:"method"`
	Path   string `json:"path"` // without the query
	Script string `json:"script"`
	Host   string `json:"host,omitempty"`
}

// Waiter is a request that waits.
type Waiter struct {
	Request
	Since    string `json:"since"`
	WaitedMS int64  `json:"waited_ms"`
}

// maxLookups bounds the requests to the store for one response: one for each lock that another process holds.
const maxLookups = 32

// lockHandler shows the locks and what their holders do, breaks locks and ends scripts.
type lockHandler struct {
	log    hclog.Logger
	host   string
	served func() Served
}

func (h *lockHandler) get(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, h.page(r.Context()))
}

// page returns the locks that are held or waited for now. Its lookups share askTimeout: a lock whose holder was not
// found by then is shown without it.
func (h *lockHandler) page(ctx context.Context) *LocksPage {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	now := time.Now()
	page := &LocksPage{At: timeText(now), Host: h.host, Locks: []Lock{}}
	lookups := 0
	served := h.served()
	page.Pause, page.Warnings = pausesOf(served), warningsOf(served)
	for _, locks := range served.Locks {
		for _, s := range locks.Snapshot() {
			if s.Key == (sessionlock.Key{}) {
				continue // a probe of the store, not a session's lock
			}
			l := h.lockOf(s, now)
			if !s.Held && locks.Store != nil && lookups < maxLookups && ctx.Err() == nil {
				lookups++
				l.findHolder(ctx, locks.Store, s.Key, now)
			}
			page.Locks = append(page.Locks, l)
		}
	}
	return page
}

func (h *lockHandler) lockOf(s sessionlock.SessionState, now time.Time) Lock {
	l := Lock{Key: s.Key.String(), Held: s.Held, Waiters: []Waiter{}}
	for _, w := range s.Waiters {
		l.Waiters = append(l.Waiters, Waiter{requestOf(w.Description), timeText(w.Since), age(w.Since, now)})
	}
	by := s.Holder
	if s.Held {
		l.Holder, l.token = requestOf(by), s.Token
		l.Holder.Host = h.host
		l.Since, l.Expires, l.HeldMS = timeText(s.Since), timeText(s.Expires), age(s.Since, now)
	} else if len(s.Waiters) > 0 {
		by = s.Waiters[0].Description
	}
	l.Realm, l.Gate = by.Realm, by.Gate
	return l
}

// findHolder asks the store for the holder on another host.
func (l *Lock) findHolder(ctx context.Context, s Store, key sessionlock.Key, now time.Time) {
	by, held, err := s.Holder(ctx, key)
	if err != nil || !held {
		return // the lock is free, or the store fails, which /readyz reports
	}
	l.Holder = Request{Gate: by.Gate, Host: by.Host}
	l.Since, l.HeldMS = timeText(by.Since), age(by.Since, now)
}

func requestOf(d sessionlock.Description) Request {
	return Request{Gate: d.Gate, Route: d.Route, Method: d.Method, Path: d.Path, Script: d.Script}
}

// withLock calls do with the one lock that the request's key matches. It looks at the whole page, so that it knows the
// holder on another host as well.
func (h *lockHandler) withLock(
	w http.ResponseWriter, r *http.Request, do func(http.ResponseWriter, *http.Request, Lock),
) {
	prefix := strings.ToLower(r.PathValue("key"))
	if !isKey(prefix) {
		fail(w, http.StatusBadRequest, "key must be 4 to 32 hexadecimal digits, as in /locks and in the log")
		return
	}
	var found []Lock
	for _, l := range h.page(r.Context()).Locks {
		if strings.HasPrefix(l.Key, prefix) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 0:
		fail(w, http.StatusNotFound, "no lock "+prefix+" is held or waited for on this host")
	case len(found) > 1:
		page := ErrorPage{Error: prefix + " matches several locks; use a longer prefix"}
		for _, l := range found {
			page.Keys = append(page.Keys, l.Key)
		}
		reply(w, http.StatusConflict, page)
	default:
		do(w, r, found[0])
	}
}

// holder returns the holder of a lock; nil if this process does not hold it, or another request does by now.
func (h *lockHandler) holder(l Lock) sessionlock.Holder {
	for _, locks := range h.served().Locks {
		if by := locks.Holder(keyOf(l.Key), l.token); by != nil {
			return by
		}
	}
	return nil
}

// notHere answers a request about a lock that this process does not hold. there is what can be done on the host that
// does.
func notHere(w http.ResponseWriter, l Lock, there string) {
	switch {
	case l.Held: // it ended since l was read
		fail(w, http.StatusNotFound, "lock "+l.Key+" has just been released")
	case l.Holder.Host != "":
		fail(w, http.StatusConflict, "lock "+l.Key+" is held on host "+l.Holder.Host+"; "+there)
	default:
		fail(w, http.StatusConflict, "lock "+l.Key+" is not held by this process")
	}
}

// isKey reports whether s can be a prefix of a key in hex. The log has eight digits, and a key 32.
func isKey(s string) bool {
	return len(s) >= 4 && len(s) <= 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// keyOf parses the text that Key.String returns.
func keyOf(digits string) (key sessionlock.Key) {
	_, _ = hex.Decode(key[:], []byte(digits))
	return key
}
