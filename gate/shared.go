package gate

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// shared is what the requests of a gate share.
type shared struct {
	log      hclog.Logger
	lines    *requestLog // for lines that a visitor can cause repeatedly
	slow     *requestLog // for slow requests
	setup    atomic.Pointer[setup]
	counters counters
	habits   habits

	rotations rotations
	outliving outliving
	pause     pause
	lostPost  atomic.Int64   // when hintLostPost last logged, in Unix nanoseconds; 0: never
	serving   sync.WaitGroup // what Shutdown waits for
}

func (g *shared) init(log hclog.Logger) {
	g.log = log
	g.lines = newRequestLog(log, logWindow, logLines)
	g.slow = newRequestLog(log, slowWindow, slowLines)
	g.pause.log = log
}

// adopt makes a setup of o, which new requests get from now on. It returns the one before, nil for the first.
func (g *shared) adopt(o Options) (old *setup) {
	s := newSetup(o, &g.counters, g.log)
	g.pause.adopt(s) // before the first request has it
	return g.setup.Swap(s)
}

// enter returns the current setup for a new request, which must leave it.
func (g *shared) enter() *setup {
	for {
		s := g.setup.Load()
		s.users.Add(1)
		if g.setup.Load() == s {
			return s
		}
		s.leave() // it was replaced in the meantime, and may already count as idle
	}
}
