package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// PausePage is the response to GET, PUT and DELETE of /pause: the gates that the request names.
type PausePage struct {
	Gates    []Pause `json:"gates"`
	Previous bool    `json:"previous"` // the process before this one still serves requests, so PHP-FPM may not be idle
}

// Pause describes whether a gate is paused, and how busy its PHP-FPM is.
type Pause struct {
	Gate    string `json:"gate"`
	Paused  bool   `json:"paused"` // DELETE: it was
	Since   string `json:"since"`  // "": not paused
	Until   string `json:"until"`  // "": not paused
	Waiting int    `json:"waiting"`
	Running int    `json:"running"` // requests in PHP-FPM, and scripts that are followed after their response
}

// pauseHandler shows, begins and ends pauses. The command "fpm-gate pause --wait" asks it until Running is zero.
type pauseHandler struct {
	log    hclog.Logger
	served func() Served
}

// Bounds of a pause. Each has an end, so that a deploy that dies does not leave the site paused.
const (
	minPause = time.Second
	maxPause = 24 * time.Hour
)

func (h *pauseHandler) get(w http.ResponseWriter, r *http.Request) {
	if gates, ok := h.named(w, r); ok {
		reply(w, http.StatusOK, h.page(gates))
	}
}

// put begins pauses. On a gate that is paused already it sets a new end. A pause begins at once; requests that are in
// PHP-FPM go on.
func (h *pauseHandler) put(w http.ResponseWriter, r *http.Request) {
	limit, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil || limit < minPause || limit > maxPause {
		fail(w, http.StatusBadRequest, fmt.Sprintf(`for must be from "1s" to "24h"; got %q`, r.URL.Query().Get("for")))
		return
	}
	gates, ok := h.named(w, r)
	if !ok {
		return
	}
	if h.served().Draining { // the next process serves new requests, and would not be paused
		fail(w, http.StatusConflict, "this process is shutting down")
		return
	}
	for _, g := range gates {
		h.log.Info("pause requested by an operator", "gate", g.Name, "client", clientOf(r))
		g.Pause(limit)
	}
	reply(w, http.StatusOK, h.page(gates))
}

// delete ends pauses, and answers with what they were before.
func (h *pauseHandler) delete(w http.ResponseWriter, r *http.Request) {
	gates, ok := h.named(w, r)
	if !ok {
		return
	}
	// The command shows how many requests waited.
	before := h.page(gates)
	for _, g := range gates {
		h.log.Info("end of a pause requested by an operator", "gate", g.Name, "client", clientOf(r))
		g.Resume()
	}
	reply(w, http.StatusOK, before)
}

// named returns the gate that a request names, or all if it names none. It answers a request that names an unknown one.
func (h *pauseHandler) named(w http.ResponseWriter, r *http.Request) (gates []Gate, ok bool) {
	all, name := h.served().Gates, r.URL.Query().Get("gate")
	if name == "" {
		return all, true
	}
	var names []string
	for _, g := range all {
		if g.Name == name {
			return []Gate{g}, true
		}
		names = append(names, g.Name)
	}
	slices.Sort(names)
	fail(w, http.StatusNotFound, fmt.Sprintf("no gate %q; there are: %s", name, strings.Join(names, ", ")))
	return nil, false
}

// page describes the gates as they are now.
func (h *pauseHandler) page(gates []Gate) *PausePage {
	page := &PausePage{Gates: []Pause{}, Previous: h.served().Previous}
	for _, g := range gates {
		page.Gates = append(page.Gates, pauseOf(g))
	}
	return page
}

// pauseOf describes one gate. Running counts scripts after their response as well: they may use what a deploy changes.
func pauseOf(g Gate) Pause {
	s := g.PauseState()
	return Pause{
		Gate: g.Name, Paused: s.Paused(), Since: timeText(s.Since), Until: timeText(s.Until),
		Waiting: s.Waiting, Running: s.Running,
	}
}

// pausesOf returns the gates that are paused, or nil if none is. Without one, the JSON of /locks has no "pause".
func pausesOf(s Served) *PausePage {
	page := &PausePage{Previous: s.Previous}
	for _, g := range s.Gates {
		if p := pauseOf(g); p.Paused {
			page.Gates = append(page.Gates, p)
		}
	}
	if len(page.Gates) == 0 {
		return nil
	}
	return page
}

// alike reports whether q shows the same gates as p, with as many requests. Either may be nil.
func (p *PausePage) alike(q *PausePage) bool {
	if p == nil || q == nil {
		return p == q
	}
	return p.Previous == q.Previous && slices.Equal(p.Gates, q.Gates)
}
