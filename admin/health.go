package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fpm-gate/fpm-gate/gate"
)

// ReadinessPage is the response to GET /readyz: with status 200 if the process is ready, else 503.
type ReadinessPage struct {
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`  // why it is not ready
	Warnings []string `json:"warnings"` // what an operator should fix although it is ready
}

// health answers health checks. It keeps the last result, so that frequent checks do not each connect to PHP-FPM.
type health struct {
	served func() Served

	mu   sync.Mutex
	page *ReadinessPage // nil: not checked yet
	at   time.Time      // when page was made
}

// healthAge is how long a result is reused.
const healthAge = time.Second

// serveAlive answers GET /healthz. It shows only that the process runs: a restart helps no gate whose PHP-FPM is away.
func (h *health) serveAlive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// serveReadiness answers GET /readyz. The status is for balancers, which read no JSON.
func (h *health) serveReadiness(w http.ResponseWriter, _ *http.Request) {
	page := h.readiness()
	status := http.StatusOK
	if !page.Ready {
		status = http.StatusServiceUnavailable
	}
	reply(w, status, page)
}

// readiness returns the last result, or a new one. It holds mu meanwhile, so that concurrent checks share one. A
// shutdown shows at once, because balancers must stop sending.
func (h *health) readiness() *ReadinessPage {
	h.mu.Lock()
	defer h.mu.Unlock()
	served := h.served()
	if h.page == nil || time.Since(h.at) > healthAge || served.Draining {
		h.page = checkReadiness(served)
		h.at = time.Now()
	}
	return h.page
}

// checkReadiness checks everything that requests need: listeners, PHP-FPM and the lock store.
func checkReadiness(s Served) *ReadinessPage {
	page := &ReadinessPage{Reasons: []string{}, Warnings: []string{}} // not null in JSON
	if s.Draining {
		page.Reasons = append(page.Reasons, "shutting down")
	}
	if s.ReloadFailed {
		page.Warnings = append(page.Warnings, "last reload failed; the previous config is active")
	}
	if s.LogFailing {
		page.Warnings = append(page.Warnings,
			"cannot write the log; the program that reads stderr has ended or hangs, or the disk is full")
	}
	page.Warnings = append(page.Warnings, pauseWarnings(s)...)
	page.Warnings = append(page.Warnings, warningsOf(s)...)
	if len(s.Gates) == 0 {
		page.Reasons = append(page.Reasons, "no config loaded yet")
	}
	// All gates at once: one whose PHP-FPM does not answer takes askTimeout.
	failures := make([]error, len(s.Gates))
	var checks sync.WaitGroup
	for i, g := range s.Gates {
		checks.Go(func() { failures[i] = checkGate(g) })
	}
	checks.Wait()
	page.Warnings = append(page.Warnings, busyUpstreams(s.Gates)...)
	page.Warnings = append(page.Warnings, unseenWorkers(s.Gates)...)
	for i, err := range failures {
		if err != nil && !s.Draining { // a gate that drains does not listen, which is as it should be
			page.Reasons = append(page.Reasons, fmt.Sprintf("gate %q: %v", s.Gates[i].Name, err))
		}
	}
	for _, l := range s.Locks {
		if l.Store == nil { // a local store cannot fail
			continue
		}
		if err := l.Store.Health(); err != nil {
			// A quorum has a line for each server that is away.
			page.Reasons = append(page.Reasons, "lock store: "+strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	page.Ready = len(page.Reasons) == 0
	return page
}

// checkGate returns nil if the gate listens and one of its PHP-FPM addresses can serve.
func checkGate(g Gate) error {
	if !g.Listening() {
		return errors.New("not listening")
	}
	if g.SocketGone {
		return errors.New("its socket was removed or replaced; a reload makes it anew")
	}
	var failures []string
	for _, u := range g.Upstreams() {
		err := checkUpstream(u)
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Sprintf("upstream %s: %v", u.Addr, err))
	}
	return errors.New(strings.Join(failures, "; "))
}

// busyUpstreams returns a warning for each PHP-FPM whose workers are all busy. It is no reason to be not ready:
// requests wait for a worker, and would for the same PHP-FPM by way of another gate.
func busyUpstreams(gates []Gate) (busy []string) {
	for _, g := range gates {
		for _, u := range g.Upstreams() {
			if u.Saturated {
				busy = append(busy, fmt.Sprintf("gate %q: upstream %s: all workers busy", g.Name, u.Addr))
			}
		}
	}
	return busy
}

// unseenWorkers returns a warning for each PHP-FPM whose workers cannot be looked at. Requests are served, but a lock
// may last longer than PHP has its session open.
func unseenWorkers(gates []Gate) (unseen []string) {
	for _, g := range gates {
		for _, u := range g.Upstreams() {
			if u.Unseen != nil {
				unseen = append(unseen, fmt.Sprintf("gate %q: upstream %s: cannot watch PHP sessions in its workers: %v",
					g.Name, u.Addr, u.Unseen))
			}
		}
	}
	return unseen
}

// checkUpstream returns nil if PHP-FPM can be reached. An open connection is proof enough; else it dials one.
func checkUpstream(u gate.UpstreamStats) error {
	if u.Failing {
		return errors.New("ping failed")
	}
	if u.Busy+u.Idle > 0 && !u.Down { // a connection of a probe would take a worker for a moment
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, u.Network, u.Address)
	switch {
	case err == nil:
		return nc.Close()
	case errors.Is(err, syscall.EAGAIN):
		return nil // its backlog is full: it runs, and is overloaded
	}
	return err
}
