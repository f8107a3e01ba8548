package admin

import (
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Served is what a process serves. A reload replaces it.
type Served struct {
	Gates    []Gate
	Locks    []Locks
	Draining bool // no new connections are accepted
	Previous bool // the process before this one still serves requests

	Profiles bool // whether Go's profiles are served

	LogLost    uint64 // lines of the log that could not be written
	LogFailing bool   // the last line was lost

	Reloaded     time.Time // when the active config was loaded
	ReloadFailed bool      // a later config was refused
}

// Gate is a gate with its name.
type Gate struct {
	Name string
	*gate.Gate
	SocketGone bool // no web server can connect: its unix socket was removed or replaced
}

// Locks are the locks that some gates share.
type Locks struct {
	*sessionlock.Manager
	Store Store // nil: the locks are kept in this process only
}

// warningsOf returns a warning for each session block that does not fit what the gate sees of its application, and for
// each gate that cannot end scripts although it should.
func warningsOf(s Served) (all []string) {
	for _, g := range s.Gates {
		if err := g.CannotTerminate(); err != nil {
			all = append(all, fmt.Sprintf("gate %q: %v", g.Name, err))
		}
		for _, m := range g.Misfits() {
			all = append(all, fmt.Sprintf("gate %q: %s", g.Name, m.Text))
		}
	}
	return all
}

// pauseWarnings returns a warning for each gate that is paused.
func pauseWarnings(s Served) (all []string) {
	for _, g := range s.Gates {
		if p := g.PauseState(); p.Paused() {
			all = append(all, fmt.Sprintf(`gate %q is paused until %s UTC; "fpm-gate resume" ends that`,
				g.Name, p.Until.UTC().Format(time.TimeOnly)))
		}
	}
	return all
}
