package supervisor

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// pauses remembers until when gates are paused with the unit, so that neither a restart nor a crash ends a pause.
// Without a unit it remembers nothing: a pause is its gate's then.
type pauses struct {
	unit Unit // nil: there is none
	log  hclog.Logger

	mu         sync.Mutex
	until      map[string]time.Time // by gate
	handedOver bool                 // the unit's pauses are the next process's
}

// load reads what the process before this one has left.
func (p *pauses) load() {
	if p.unit == nil {
		return
	}
	until, err := p.unit.LoadPauses()
	switch {
	case errors.Is(err, ErrNoFolder): // which is logged by what takes over the locks
		p.unit = nil
	case err != nil:
		p.log.Warn("pauses of the previous process are not known", "error", err)
	}
	p.until = until
}

// left returns how long a gate that is going to be served is to be paused; zero: not at all.
func (p *pauses) left(gate string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.until[gate]), 0)
}

// note remembers that a gate is paused until then, or with zero no longer.
func (p *pauses) note(gate string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unit == nil || p.handedOver {
		return
	}
	next := maps.Clone(p.until)
	if until.IsZero() {
		delete(next, gate)
	} else {
		if next == nil {
			next = make(map[string]time.Time)
		}
		next[gate] = until
	}
	p.until = next
	if err := p.unit.SavePauses(next); err != nil {
		p.log.Warn("a restart would end this pause, or begin it again", "gate", gate, "error", err)
	}
}

// followPause is how often a process that has handed over looks whether the next one has ended a pause.
const followPause = 100 * time.Millisecond

// handOver leaves the pauses to the next process. A pause that it ends, ends here too, until this process is done.
func (p *pauses) handOver(gates map[string]Gate, done <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handedOver = true
	if p.unit != nil {
		go p.follow(gates, done)
	}
}

func (p *pauses) follow(gates map[string]Gate, done <-chan struct{}) {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		until, err := p.unit.LoadPauses()
		if err != nil {
			continue // no reason to end a pause
		}
		for name, g := range gates {
			if _, paused := until[name]; !paused {
				g.Resume()
			}
		}
	}
}
