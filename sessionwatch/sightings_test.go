package sessionwatch

import (
	"testing"
	"time"
)

func TestSightingsAreRemembered(t *testing.T) {
	var s sightings
	const hash = 0x1234567890abcdef
	for _, step := range []struct {
		open bool
		want sighting
	}{{true, sawOpen}, {true, sawOpen}, {false, sawUse}, {true, sawUse | sawOpen}, {false, sawUse}} {
		s.note(hash, step.open)
		if got := s.look(hash); got != step.want {
			t.Errorf("after open=%v: got %b, want %b", step.open, got, step.want)
		}
	}
	for _, other := range []uint64{hash + 1<<35, hash + 1, 0, 1 << 63} {
		if got := s.look(other); got != 0 {
			t.Errorf("%x: got %b of a session that was not seen", other, got)
		}
	}
}

// A bucket that is full forgets what was seen longest ago.
func TestSightingsAreBounded(t *testing.T) {
	var s sightings
	hash := func(i int) uint64 { return uint64(i)<<35 | 7 }
	places := len(bucket{})
	for i := 1; i <= places; i++ {
		s.note(hash(i), false)
	}
	s.note(hash(1), true)
	s.note(hash(places+1), false)
	for i := 1; i <= places+1; i++ {
		want := i != 2
		if got := s.look(hash(i)) != 0; got != want {
			t.Errorf("session %d of a bucket for %d: known %v, want %v", i, places, got, want)
		}
	}
	if s.look(hash(1)) != sawUse|sawOpen {
		t.Error("a session that was seen again has lost what was seen of it first")
	}
}

func TestSightingsAreForgottenAfterTwoTurns(t *testing.T) {
	var s sightings
	now := time.Now()
	s.turn(now)
	s.note(1<<40, false)
	s.note(2<<40, false)
	s.turn(now.Add(turnTime - 1))
	if s.old != nil {
		t.Error("the tables were turned too early")
	}
	now = now.Add(turnTime)
	s.turn(now)
	s.note(2<<40, true)
	if s.look(1<<40) != sawUse || s.look(2<<40) != sawUse|sawOpen {
		t.Error("a sighting was lost after one turn")
	}
	now = now.Add(turnTime)
	s.turn(now)
	if s.look(1<<40) != 0 || s.look(2<<40) == 0 {
		t.Error("want the session that was not seen for a turn forgotten, and the other one not")
	}
	s.turn(now.Add(2 * turnTime))
	if s.look(2<<40) != 0 {
		t.Error("a sighting has outlived a pause without any")
	}
}
