package gate

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// habits are which scripts never open the session that they are sent a cookie of. One that has not, several times
// in a row, gives its turn away at once when somebody waits. A script that has another habit than it seemed to have
// meets PHP's own lock, and is forgotten here.
type habits struct {
	mu    sync.Mutex
	seed  maphash.Seed
	times map[uint64]int // in a row
}

const (
	// timesToLearn is after how many times a script is believed never to open its session.
	timesToLearn = 3
	// maxHabits bounds how many scripts are known. Visitors can ask for any path: one more takes the place of another.
	maxHabits = 4096
)

// sessionless reports whether the script of a request never opens its session, as far as is known.
func (h *habits) sessionless(of *head) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.times) > 0 && h.times[h.key(of)] >= timesToLearn
}

// learn notes what the script of a request has done.
func (h *habits) learn(of *head, seen sessionwatch.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case seen == sessionwatch.Open || seen == sessionwatch.Closed:
		if len(h.times) > 0 {
			delete(h.times, h.key(of))
		}
	case seen == sessionwatch.Unopened:
		h.note(h.key(of))
	}
}

func (h *habits) note(key uint64) {
	if h.times == nil {
		h.times = make(map[uint64]int)
	}
	if len(h.times) >= maxHabits && h.times[key] == 0 {
		for other := range h.times {
			delete(h.times, other)
			break
		}
	}
	h.times[key] = min(h.times[key]+1, timesToLearn)
}

// key stands for a script's file and the path by which it was asked for: many applications have one script for all.
func (h *habits) key(of *head) uint64 {
	if h.seed == (maphash.Seed{}) {
		h.seed = maphash.MakeSeed()
	}
	path, _, _ := bytes.Cut(of.target, []byte("?"))
	return maphash.Bytes(h.seed, of.filename) ^ 31*maphash.Bytes(h.seed, path)
}
