package gate

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// habits records which scripts never open the session whose cookie they get. A script that has not opened it several
// times in a row gives its turn away at once when a request waits. If it opens its session after all, it waits for
// PHP's own lock, and is forgotten here.
type habits struct {
	mu    sync.Mutex
	seed  maphash.Seed
	times map[uint64]int // in a row
}

const (
	// timesToLearn is how many times in a row a script must not have opened its session.
	timesToLearn = 3
	// maxHabits bounds the scripts that are remembered, because visitors can request any path.
	maxHabits = 4096
)

// sessionless reports whether the script of a request is known never to open its session.
func (h *habits) sessionless(of *head) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.times) > 0 && h.times[h.key(of)] >= timesToLearn
}

// learn records whether the script of a request opened its session.
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

// key identifies a script by its file and the request's path: many applications have a single script for all paths.
func (h *habits) key(of *head) uint64 {
	if h.seed == (maphash.Seed{}) {
		h.seed = maphash.MakeSeed()
	}
	path, _, _ := bytes.Cut(of.target, []byte("?"))
	return maphash.Bytes(h.seed, of.filename) ^ 31*maphash.Bytes(h.seed, path)
}
