package sessionwatch

import "time"

// sightings are the sessions that PHP was seen to use lately, by hashes of their ids. They are the evidence on which
// "PHP has not opened this session" is believed. Their memory is bounded: what is forgotten costs a session the turns
// that its scripts could have given away, and no more. The zero value is empty.
//
// There are two tables, so that nothing is believed for longer than two turns: an application may be given another
// session handler while the gate runs.
type sightings struct {
	young, old []bucket
	turned     time.Time // when young was empty
}

// bucket holds the hashes that share their low bits, the latest first: 29 bits of each, and a sighting.
type bucket [4]uint32

// sighting is what was seen of a session.
type sighting uint32

const (
	sawUse   sighting           = 1 << iota // PHP has opened the session and closed it
	sawOpen                                 // it has opened it since it last closed it
	sawMask  = sawUse | sawOpen             //
	buckets  = 1 << 14                      // of a table: 65,536 sessions, 256 KiB
	turnTime = 10 * time.Minute
)

// note adds what was seen last of a session.
func (s *sightings) note(hash uint64, open bool) {
	if s.young == nil {
		s.young = make([]bucket, buckets)
	}
	saw := sawUse
	if open {
		saw = s.look(hash) | sawOpen
	}
	b, tag, i := &s.young[hash%buckets], tagOf(hash), 0
	for i < len(b)-1 && b[i]&^uint32(sawMask) != tag {
		i++
	}
	copy(b[1:i+1], b[:i])
	b[0] = tag | uint32(saw)
}

// look returns what was seen of a session.
func (s *sightings) look(hash uint64) sighting {
	tag := tagOf(hash)
	for _, table := range [][]bucket{s.young, s.old} {
		if table == nil {
			continue
		}
		for _, entry := range table[hash%buckets] {
			if entry&^uint32(sawMask) == tag {
				return sighting(entry) & sawMask
			}
		}
	}
	return 0
}

// tagOf is what of a hash stands in its bucket: never zero, which is an empty place.
func tagOf(hash uint64) uint32 { return (uint32(hash>>32) | 4) &^ uint32(sawMask) }

// turn forgets what has not been seen for a turn, if it is time.
func (s *sightings) turn(now time.Time) {
	switch age := now.Sub(s.turned); {
	case s.turned.IsZero():
		s.turned = now
		return
	case age < turnTime:
		return
	case age < 2*turnTime:
		s.old = s.young
	default:
		s.old = nil
	}
	s.young, s.turned = nil, now
}

// forget forgets all of them.
func (s *sightings) forget() { s.young, s.old = nil, nil }
