package gate

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// habits records two habits of scripts.
//
// Some never open the session whose cookie they get. A script that has not opened it several times in a row gives its
// turn away at once when a request waits. If it opens its session after all, it waits for PHP's own lock, and is
// forgotten here.
//
// Others open their session again after they have closed it. Where PHP does not lock, such a script keeps its lock
// until it ends from the next time on.
type habits struct {
	mu       sync.Mutex
	seed     maphash.Seed
	times    map[scriptKey]int // in a row
	reopened map[scriptKey]int // how many times each will still keep its lock
}

// scriptKey identifies a script by its file and the request's path: many applications have a single script for all
// paths.
type scriptKey uint64

const (
	// timesToLearn is how many times in a row a script must not have opened its session.
	timesToLearn = 3
	// timesToForget is how many times in a row a script must not have opened its session again.
	timesToForget = 100
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

func (h *habits) note(key scriptKey) {
	if h.times == nil {
		h.times = make(map[scriptKey]int)
	}
	makeRoom(h.times, key)
	h.times[key] = min(h.times[key]+1, timesToLearn)
}

// makeRoom deletes any script from a map that is full, unless the map has key.
func makeRoom(m map[scriptKey]int, key scriptKey) {
	if len(m) >= maxHabits && m[key] == 0 {
		for other := range m {
			delete(m, other)
			break
		}
	}
}

// noteReopened records that a script has opened its session again.
func (h *habits) noteReopened(key scriptKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reopened == nil {
		h.reopened = make(map[scriptKey]int)
	}
	makeRoom(h.reopened, key)
	h.reopened[key] = timesToForget
}

// reopens records that a script has closed its session, and reports whether it is known to open it again.
func (h *habits) reopens(key scriptKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.reopened[key]
	switch {
	case n > 1:
		h.reopened[key] = n - 1
	case n == 1:
		delete(h.reopened, key)
	}
	return n > 0
}

// keyOf returns the key of a request's script.
func (h *habits) keyOf(of *head) scriptKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.key(of)
}

// key is keyOf with the mutex held.
func (h *habits) key(of *head) scriptKey {
	if h.seed == (maphash.Seed{}) {
		h.seed = maphash.MakeSeed()
	}
	path, _, _ := bytes.Cut(of.target, []byte("?"))
	return scriptKey(maphash.Bytes(h.seed, of.filename) ^ 31*maphash.Bytes(h.seed, path))
}
