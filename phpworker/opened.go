package phpworker

import "sync/atomic"

// sessionVars is where a program keeps $_SESSION in psGlobals, a zval: the place differs between versions, so it is
// learned from the first session that is seen open; also from one that is closed where the layout was looked up, as
// there is no other variable in that part that could be a reference. 0: not learned yet.
type sessionVars struct{ offset atomic.Int32 }

// The part of psGlobals in which that is searched: 312 in PHP 7.4, 320 in 8.2, 360 in 8.4 and 8.5.
const (
	varsFrom = 296
	varsSize = 144
)

// The type of a zval that is a reference, as $_SESSION is once PHP has opened a session: one that is counted, and since
// PHP 8.5 also seen by the collector of cycles.
const (
	countedReference     = 10 | 1<<8
	collectableReference = 10 | 3<<8
)

// readVars reads that part. It has to be read before the session: one that is closed after its variable was seen has
// been open, while one whose variable appears after it was seen closed may have been opened in between.
func readVars(m memory, addr uint64) *[varsSize]byte {
	b := new([varsSize]byte)
	if m.read(addr+varsFrom, b[:]) != nil {
		return nil
	}
	return b
}

// opened returns what the variable shows of a session with an id that was read after it. known: its layout was looked
// up. With nil, nothing is known.
func (v *sessionVars) opened(b *[varsSize]byte, s Status, known bool) Opened {
	if b == nil {
		return NotKnown
	}
	at := int(v.offset.Load())
	switch {
	case at == 0 && s == Active:
		v.learn(b[:])
		return Before
	case at == 0 && known && v.learn(b[:]):
		return Before
	case at == 0:
		return NotKnown
	case isZval(b[at-varsFrom:]):
		return Before
	}
	return NotYet
}

// learn notes where a session has its variable, if exactly one place looks like it, and reports whether one does.
func (v *sessionVars) learn(b []byte) bool {
	found := 0
	for at := 0; at+16 <= len(b); at += 8 {
		if !isZval(b[at:]) {
			continue
		}
		if found != 0 {
			return false
		}
		found = varsFrom + at
	}
	v.offset.Store(int32(found))
	return found != 0
}

// isZval reports whether b begins with a reference.
func isZval(b []byte) bool {
	kind := native.Uint32(b[8:])
	return native.Uint64(b) > 1<<12 && (kind == countedReference || kind == collectableReference)
}
