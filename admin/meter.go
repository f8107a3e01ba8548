package admin

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// meter measures one route's requests and their locks. It is on the request path, so it keeps its histograms instead of
// looking them up by labels.
type meter struct {
	wait    [gate.Outcomes]observer
	hold    [gate.HoldOutcomes]observer
	queue   [gate.Outcomes]observer
	php     [gate.Outcomes]observer
	history *gateHistory // of the route's gate
	all     *history     // of all: gates of one realm wait for each other
}

func newMeter(m *metrics, h *history, gateName, route string) *meter {
	t := &meter{history: h.gate(gateName), all: h}
	for end := range t.wait {
		labels := []string{gateName, route, gate.Outcome(end).String()}
		t.wait[end] = observer{vec: m.wait, labels: labels}
		t.queue[end] = observer{vec: m.queue, labels: labels}
		t.php[end] = observer{vec: m.php, labels: labels}
	}
	for end := range t.hold {
		t.hold[end] = observer{vec: m.hold, labels: []string{gateName, route, gate.HoldOutcome(end).String()}}
	}
	return t
}

// Waited observes a wait.
func (t *meter) Waited(end gate.Outcome, waited time.Duration, blockedBy *sessionlock.Description) {
	t.wait[end].observe(waited)
	if waited == 0 { // a free lock, as for most requests: the history would only take time
		return
	}
	t.history.waited(waited)
	if blockedBy.Gate != "" {
		t.all.gate(blockedBy.Gate).blocked(blockedBy.Script, waited)
	}
}

// Held observes a hold.
func (t *meter) Held(end gate.HoldOutcome, held time.Duration, script []byte) {
	t.hold[end].observe(held)
	t.history.held(script, held)
}

// Ended observes a request's times. A request that never got to a stage is not in its histogram, where it would count
// as a fast one.
func (t *meter) Ended(end gate.Outcome, times *gate.Times, script []byte) {
	if times.Queued {
		t.queue[end].observe(times.Connection)
	}
	if times.Sent {
		t.php[end].observe(times.PHP)
	}
	t.history.ended(script, times)
}

// Slow notes a slow request.
func (t *meter) Slow(script string, taken time.Duration) { t.history.slow(script, taken) }

// observer is a histogram that is created when first needed: most routes see only a few of the outcomes.
type observer struct {
	vec    *prometheus.HistogramVec
	labels []string
	made   atomic.Pointer[prometheus.Observer] // nil until then
}

func (o *observer) observe(d time.Duration) {
	made := o.made.Load()
	if made == nil {
		h := o.vec.WithLabelValues(o.labels...) // concurrent callers get the same one
		made = &h
		o.made.Store(made)
	}
	(*made).Observe(d.Seconds())
}
