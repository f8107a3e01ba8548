package sessionwatch

import "time"

// sightings are the sessions that PHP was recently seen to use, by hashes of their ids. They are the evidence for "PHP
// has not opened this session". Their memory is bounded. Forgetting a session only means that its scripts cannot give
// their turns away. The zero value is empty.
//
// Two tables take turns, so that evidence is at most two turns old: an application may get another session handler
// while the gate runs.
type sightings struct {
	young, old []bucket
	turned     time.Time // when young was started
}

// bucket holds hashes that share their low bits, latest first: 29 bits of each and a sighting.
type bucket [4]uint32

// sighting is what was seen of a session.
type sighting uint32

const (
	sawUse   sighting           = 1 << iota // PHP has opened the session and closed it
	sawOpen                                 // PHP has opened it since it last closed it
	sawMask  = sawUse | sawOpen             //
	buckets  = 1 << 14                      // of a table: 65,536 sessions, 256 KiB
	turnTime = 10 * time.Minute
)

// note records that a session was seen to be opened or closed.
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

// tagOf returns the part of a hash that is kept in a bucket. It is never zero, which marks an empty place.
func tagOf(hash uint64) uint32 { return (uint32(hash>>32) | 4) &^ uint32(sawMask) }

// turn starts a new table if it is time, and so forgets what has not been seen for a turn.
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

// forget forgets all sessions.
func (s *sightings) forget() { s.young, s.old = nil, nil }
