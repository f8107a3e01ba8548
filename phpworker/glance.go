package phpworker

import (
	"bytes"
	"sync/atomic"
)

// glance is the memory from which a session was read last. Most looks find it unchanged, which takes one system call.
type glance struct {
	globals [psGlobalsSize]byte
	vars    [varsSize]byte
	id      []byte // the zend_string of the id; empty: there is none
	session Session
	looks   atomic.Uint32 // that have found it
}

// take reads the memory that a session and its variable were read from a moment ago. It returns nil if that has changed
// since, or if the next look may see more in the same memory.
func take(m gatherer, addr uint64, s Session, vars *[varsSize]byte) *glance {
	if vars == nil || s.ID != "" && s.Opened == NotKnown {
		return nil
	}
	g := &glance{session: s}
	if m.gather(part{addr, g.globals[:]}, part{addr + varsFrom, g.vars[:]}) != nil {
		return nil
	}
	if g.vars != *vars {
		return nil
	}
	id := native.Uint64(g.globals[offsetID:])
	status := Disabled + Status(int32(native.Uint32(g.globals[offsetStatus:])))
	if status != s.Status || (id != 0) != (s.ID != "") {
		return nil
	}
	if id != 0 {
		g.id = make([]byte, stringBytes+len(s.ID)+1)
		if m.gather(part{id, g.id}) != nil || string(g.id[stringBytes:len(g.id)-1]) != s.ID {
			return nil
		}
	}
	return g
}

// isUnchanged reports whether the process has the same memory as then. The id's references, flags and hash may
// differ: PHP counts the first, and computes the hash when it needs it.
func (g *glance) isUnchanged(m gatherer, addr uint64) bool {
	var now struct {
		globals [psGlobalsSize]byte
		vars    [varsSize]byte
		id      []byte
	}
	parts := []part{{addr, now.globals[:]}, {addr + varsFrom, now.vars[:]}}
	if len(g.id) > 0 {
		now.id = make([]byte, len(g.id))
		parts = append(parts, part{native.Uint64(g.globals[offsetID:]), now.id})
	}
	if m.gather(parts...) != nil || now.globals != g.globals || now.vars != g.vars {
		return false
	}
	return len(g.id) == 0 || bytes.Equal(now.id[stringLength:], g.id[stringLength:])
}
