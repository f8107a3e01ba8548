package phpworker

import "sync/atomic"

// Opened is what is known of whether PHP has opened a session in the request that it serves now. It can be told from a
// variable that PHP keeps until the request ends or the session is destroyed: $_SESSION, as the session module sees it.
type Opened int

// The values of Opened.
const (
	NotKnown Opened = iota // this PHP was not seen with an open session yet, or is not understood so far
	NotYet                 // no session was opened, or the last one was destroyed
	Before                 // a session was opened, and is open or has been closed
)

// sessionVars is where a program keeps $_SESSION in psGlobals, a zval: the place differs between versions, so it is
// learned from the first session that is seen open. 0: not learned yet.
type sessionVars struct{ offset atomic.Int32 }

// The part of psGlobals in which that is searched: 320 in PHP 8.2, and 16 more since 8.3.
const (
	varsFrom = 296
	varsSize = 72
)

// isReference is the type of a zval that is a counted reference, as $_SESSION is once PHP has opened a session.
const isReference = 10 | 1<<8

// look returns what the variable shows of a session that was just read.
func (v *sessionVars) look(m memory, addr uint64, s Session) Opened {
	var b [varsSize]byte
	if m.read(addr+varsFrom, b[:]) != nil {
		return NotKnown
	}
	at := int(v.offset.Load())
	switch {
	case at == 0 && s.Status == Active:
		v.learn(b[:])
		return Before
	case at == 0:
		return NotKnown
	case isZval(b[at-varsFrom:]):
		return Before
	}
	return NotYet
}

// learn notes where an open session has its variable, if there is only one place that looks like it.
func (v *sessionVars) learn(b []byte) {
	found := 0
	for at := 0; at+16 <= len(b); at += 8 {
		if !isZval(b[at:]) {
			continue
		}
		if found != 0 {
			return
		}
		found = varsFrom + at
	}
	v.offset.Store(int32(found))
}

// isZval reports whether b begins with a reference.
func isZval(b []byte) bool { return native.Uint64(b) > 1<<12 && native.Uint32(b[8:]) == isReference }
