package main

import (
	"runtime/debug"
	"time"
)

// crowd is so many conns that their memory is worth giving back when they have gone.
const crowd = 1000

// settle is how long the goroutines of a crowd may take to end, which wait for other conns for a while.
const settle = 3 * time.Second

// memory gives the memory of a crowd back to the system. Go does so too, but a process that has become quiet
// collects its garbage every two minutes only, and needs several rounds of it.
type memory struct {
	most int // conns at once, since memory was given back
}

// watch looks once a second at how many conns there are, for as long as the process lives.
func (m *memory) watch(conns func() int) {
	for range time.Tick(time.Second) {
		if m.gone(conns()) {
			time.Sleep(settle)
			// What is pooled outlives one collection.
			debug.FreeOSMemory()
			debug.FreeOSMemory()
		}
	}
}

// gone says whether there was a crowd of which nine in ten have left.
func (m *memory) gone(conns int) bool {
	m.most = max(m.most, conns)
	if m.most < crowd || conns > m.most/10 {
		return false
	}
	m.most = conns
	return true
}
