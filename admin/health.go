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

// ReadinessPage is the answer to GET /readyz: 200 if it is ready, else 503.
type ReadinessPage struct {
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`  // why it is not
	Warnings []string `json:"warnings"` // what an operator should see to all the same
}

// health is the last answer about readiness: many may ask, PHP-FPM is not to be bothered by each.
type health struct {
	mu   sync.Mutex
	page *ReadinessPage
	at   time.Time
}

// healthAge is how old the answer may be.
const healthAge = time.Second

func (a *Admin) getHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

func (a *Admin) getReadiness(w http.ResponseWriter, _ *http.Request) {
	page := a.readiness()
	status := http.StatusOK
	if !page.Ready {
		status = http.StatusServiceUnavailable
	}
	reply(w, status, page)
}

func (a *Admin) readiness() *ReadinessPage {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	served := a.options.Served()
	if a.health.page == nil || time.Since(a.health.at) > healthAge || served.Draining {
		a.health.page = checkReadiness(served)
		a.health.at = time.Now()
	}
	return a.health.page
}

// checkReadiness asks all that requests will need.
func checkReadiness(s Served) *ReadinessPage {
	page := &ReadinessPage{Reasons: []string{}, Warnings: []string{}}
	if s.Draining {
		page.Reasons = append(page.Reasons, "it is being shut down")
	}
	if s.ReloadFailed {
		page.Warnings = append(page.Warnings, "the config was refused at the last reload: the one before is in force")
	}
	if s.LogFailing {
		page.Warnings = append(page.Warnings, "the log cannot be written: the program that reads stderr has ended or hangs")
	}
	page.Warnings = append(page.Warnings, misfitsOf(s)...)
	if len(s.Gates) == 0 {
		page.Reasons = append(page.Reasons, "no config is served yet")
	}
	failures := make([]error, len(s.Gates))
	var asked sync.WaitGroup
	for i, g := range s.Gates {
		asked.Go(func() { failures[i] = checkGate(g) })
	}
	asked.Wait()
	page.Warnings = append(page.Warnings, busyUpstreams(s.Gates)...)
	for i, err := range failures {
		if err != nil && !s.Draining {
			page.Reasons = append(page.Reasons, fmt.Sprintf("gate %q: %v", s.Gates[i].Name, err))
		}
	}
	for _, l := range s.Locks {
		if l.Store == nil {
			continue
		}
		if err := l.Store.Health(); err != nil {
			page.Reasons = append(page.Reasons, "lock store: "+strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	page.Ready = len(page.Reasons) == 0
	return page
}

// checkGate says why requests that come now would not be served.
func checkGate(g Gate) error {
	if !g.Listening() {
		return errors.New("it does not listen")
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

// busyUpstreams names those whose workers are all taken.
func busyUpstreams(gates []Gate) (busy []string) {
	for _, g := range gates {
		for _, u := range g.Upstreams() {
			if u.Saturated {
				busy = append(busy, fmt.Sprintf("gate %q: upstream %s is busy: its ping waits for a worker", g.Name, u.Addr))
			}
		}
	}
	return busy
}

// checkUpstream says why a PHP-FPM cannot serve. One that has a connection is not asked for another.
func checkUpstream(u gate.UpstreamStats) error {
	if u.Failing {
		return errors.New("it does not answer its ping")
	}
	if u.Busy+u.Idle > 0 && !u.Down {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, u.Network, u.Address)
	switch {
	case err == nil:
		return nc.Close()
	case errors.Is(err, syscall.EAGAIN):
		return nil // its backlog is full: it is there, and has more than enough to do
	}
	return err
}
