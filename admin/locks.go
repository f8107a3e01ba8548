package admin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// LocksPage is the answer to GET /locks, and the data of the event "locks".
type LocksPage struct {
	At    string `json:"at"`   // RFC 3339, as all times here
	Host  string `json:"host"` // that answers
	Locks []Lock `json:"locks"`

	Warnings []string `json:"warnings,omitempty"` // about the session blocks of gates
}

// Lock is a lock that somebody holds or waits for: those held longest first.
type Lock struct {
	Key     string   `json:"key"`
	Realm   string   `json:"realm"`
	Gate    string   `json:"gate"`    // the holder's, or the first waiter's
	Held    bool     `json:"held"`    // in this process
	Holder  Request  `json:"holder"`  // if not held here, whoever holds it on another host; of him gate and host are known
	Since   string   `json:"since"`   // "": nobody holds it
	Expires string   `json:"expires"` // "": it does not, or it is not held here
	HeldMS  int64    `json:"held_ms"`
	Waiters []Waiter `json:"waiters"` // on this host, in their order
}

// Request is who holds a lock or waits for it.
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

// ErrorPage is the answer to what cannot be done.
type ErrorPage struct {
	Error string   `json:"error"`
	Keys  []string `json:"keys,omitempty"` // of the locks that were possibly meant
}

// maxAsked is how many locks that are held elsewhere the store is asked about, for one answer.
const maxAsked = 32

func (a *Admin) getLocks(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusOK, a.locks(r.Context()))
}

// locks is what is held and waited for now.
func (a *Admin) locks(ctx context.Context) *LocksPage {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	now := time.Now()
	page := &LocksPage{At: timeText(now), Host: a.options.Host, Locks: []Lock{}}
	asked := 0
	served := a.options.Served()
	page.Warnings = misfitsOf(served)
	for _, locks := range served.Locks {
		for _, s := range locks.Snapshot() {
			if s.Key == (sessionlock.Key{}) {
				continue // no session's: the process tries whether locks can be had
			}
			l := a.lockOf(s, now)
			if !s.Held && locks.Store != nil && asked < maxAsked && ctx.Err() == nil {
				asked++
				l.askHolder(ctx, locks.Store, s.Key, now)
			}
			page.Locks = append(page.Locks, l)
		}
	}
	return page
}

// misfitsOf returns what does not fit between the session blocks of the gates and their applications.
func misfitsOf(s Served) (all []string) {
	for _, g := range s.Gates {
		for _, m := range g.Misfits() {
			all = append(all, fmt.Sprintf("gate %q: %s", g.Name, m.Text))
		}
	}
	return all
}

func (a *Admin) lockOf(s sessionlock.SessionState, now time.Time) Lock {
	l := Lock{Key: s.Key.String(), Held: s.Held, Waiters: []Waiter{}}
	for _, w := range s.Waiters {
		l.Waiters = append(l.Waiters, Waiter{requestOf(w.Description), timeText(w.Since), age(w.Since, now)})
	}
	by := s.Holder
	if s.Held {
		l.Holder = requestOf(by)
		l.Holder.Host = a.options.Host
		l.Since, l.Expires, l.HeldMS = timeText(s.Since), timeText(s.Expires), age(s.Since, now)
	} else if len(s.Waiters) > 0 {
		by = s.Waiters[0].Description
	}
	l.Realm, l.Gate = by.Realm, by.Gate
	return l
}

// askHolder finds who holds a lock on another host.
func (l *Lock) askHolder(ctx context.Context, s Store, key sessionlock.Key, now time.Time) {
	h, held, err := s.Holder(ctx, key)
	if err != nil || !held {
		return // it is free, or the store fails, which /readyz says
	}
	l.Holder = Request{Gate: h.Gate, Host: h.Host}
	l.Since, l.HeldMS = timeText(h.Since), age(h.Since, now)
}

func requestOf(d sessionlock.Description) Request {
	return Request{Gate: d.Gate, Route: d.Route, Method: d.Method, Path: d.Path, Script: d.Script}
}

// deleteLock breaks a lock: its holder goes on without it, and the next waiter gets it.
func (a *Admin) deleteLock(w http.ResponseWriter, r *http.Request) {
	prefix := strings.ToLower(r.PathValue("key"))
	if !isKey(prefix) {
		fail(w, http.StatusBadRequest, "a lock's key is 4 to 32 hexadecimal digits, as in /locks and in the log")
		return
	}
	var found []Lock
	for _, l := range a.locks(r.Context()).Locks {
		if strings.HasPrefix(l.Key, prefix) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 0:
		fail(w, http.StatusNotFound, "no lock "+prefix+" is held or waited for here")
	case len(found) > 1:
		page := ErrorPage{Error: prefix + " is the begin of several locks; say more of the key"}
		for _, l := range found {
			page.Keys = append(page.Keys, l.Key)
		}
		reply(w, http.StatusConflict, page)
	default:
		a.breakLock(w, r, found[0])
	}
}

func (a *Admin) breakLock(w http.ResponseWriter, r *http.Request, l Lock) {
	for _, locks := range a.options.Served().Locks {
		if locks.Break(keyOf(l.Key)) {
			a.options.Log.Info("an operator breaks a lock", "lock", l.Key[:8], "client", clientOf(r))
			reply(w, http.StatusOK, l)
			return
		}
	}
	switch {
	case l.Held: // a moment ago
		fail(w, http.StatusNotFound, "lock "+l.Key+" has just been released")
	case l.Holder.Host != "":
		fail(w, http.StatusConflict, "lock "+l.Key+" is held on host "+l.Holder.Host+"; break it there")
	default:
		fail(w, http.StatusConflict, "nobody of this process holds lock "+l.Key)
	}
}

func isKey(s string) bool {
	return len(s) >= 4 && len(s) <= 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// timeText is a time as JSON has it, in UTC; "" if there is none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func age(since, now time.Time) int64 { return max(0, now.Sub(since).Milliseconds()) }

func fail(w http.ResponseWriter, status int, text string) {
	reply(w, status, ErrorPage{Error: text})
}

func reply(w http.ResponseWriter, status int, page any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(page) // of an operator who has gone there is nothing to say
}

// keyOf reads the key that String has written.
func keyOf(digits string) (key sessionlock.Key) {
	_, _ = hex.Decode(key[:], []byte(digits))
	return key
}
