package main

import (
	"runtime/debug"
	"time"
)

// crowd is the number of conns from which on their memory is worth returning to the system.
const crowd = 1000

// settle gives the goroutines of a crowd time to end: an idle one waits for another conn for a while.
const settle = 3 * time.Second

// memory returns memory to the system after a crowd of conns has gone. Go does so too, but an idle process collects its
// garbage only every two minutes, and needs several collections.
type memory struct {
	most int // the most conns at once since memory was last returned
}

// watch checks the number of conns once a second. It never returns.
func (m *memory) watch(conns func() int) {
	for range time.Tick(time.Second) {
		if m.gone(conns()) {
			time.Sleep(settle)
			// Objects in a sync.Pool survive one collection.
			debug.FreeOSMemory()
			debug.FreeOSMemory()
		}
	}
}

// gone reports whether nine in ten conns of a crowd have gone.
func (m *memory) gone(conns int) bool {
	m.most = max(m.most, conns)
	if m.most < crowd || conns > m.most/10 {
		return false
	}
	m.most = conns
	return true
}
