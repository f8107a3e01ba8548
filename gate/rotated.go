package gate

import (
	"bytes"
	"errors"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// When a response sets another session id, as session_regenerate_id() does at a login, the requests that have waited
// for its session have an id that may be gone. In strict mode PHP would start an empty session for each, whose cookie
// would log the visitor out. (Without the gate they would have waited inside PHP, with the old session open.) So the
// gate redirects a browser to the same address, to come back with its new cookie. A client that only has the old id
// never gets the new one. docs/DESIGN.md has the details.

// errReplaced is returned by acquire when the session id of the request was replaced while it waited.
var errReplaced = errors.New("the session id was replaced")

// rotation is the replacement of a session id by the response of its holder, or a possible one: PHP has closed the
// session and its script goes on.
type rotation struct {
	since    time.Time     // zero if the id has not been replaced
	replaced chan struct{} // closed when it has been
	over     chan struct{} // closed when the response has been sent
	ended    time.Time     // when the response was sent

	generation int                 // the number of recent rotations that led to the id
	sentBack   map[uint64]struct{} // hashes of the targets of requests that have been redirected
	// destroyed reports whether PHP has destroyed the session that it closed early; nil: it has not closed one.
	destroyed func() bool
}

// rotations are the recently replaced session ids, and those that may be replaced. The zero value is ready to use.
type rotations struct {
	mu     sync.Mutex
	recent map[sessionlock.Key]*rotation // kept for rotationMemory; of a new id, its generation
	order  []aged                        // of recent, by age
	closed map[sessionlock.Key]*rotation // of sessions that PHP closed before the end of the script
}

type aged struct {
	key sessionlock.Key
	at  time.Time
}

const (
	// rotationMemory is how long a replaced id does not count as replaced again, and its replacement counts as the next
	// generation. A client that keeps no cookies, or an application whose cookie changes with every response, must not
	// cause endless redirects.
	rotationMemory = 10 * time.Second
	maxGenerations = 2

	// maxRotations bounds the memory. Further rotations are ignored, and their waiters go on with the old id.
	maxRotations = 8192

	// headerPatience is how long a redirect waits for the end of the response whose header sets the new cookie, if its
	// script goes on without the lock.
	headerPatience = time.Second

	// settleTime gives a browser time to store the new cookie, which may arrive on another connection, before the
	// redirect. A browser that comes back with the old cookie is redirected again after retryTime, until retryFor after
	// the response. That is far less often than the number of redirects that browsers follow.
	settleTime = 20 * time.Millisecond
	retryTime  = 150 * time.Millisecond
	retryFor   = time.Second

	// maxSentBack bounds the targets that a rotation remembers.
	maxSentBack = 256
)

// rotates is a request's part in rotations, whose mutex guards it.
type rotates struct {
	key      sessionlock.Key // of the session id that the request came with
	rotation *rotation       // nil: none so far
	left     bool            // the response has been sent
}

// sawClose notes that PHP has closed the session of r, whose script goes on and may have replaced the id.
func (rs *rotations) sawClose(r *rotates, destroyed func() bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.left || r.rotation != nil {
		return
	}
	if rs.closed == nil {
		rs.closed = make(map[sessionlock.Key]*rotation)
	}
	rot := newRotation()
	rot.destroyed = destroyed
	r.rotation, rs.closed[r.key] = rot, rot
}

func newRotation() *rotation {
	return &rotation{replaced: make(chan struct{}), over: make(chan struct{})}
}

// rotate notes that the response of r sets another session id, unless that is not to count.
func (rs *rotations) rotate(r *rotates, renewed sessionlock.Key) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	now := time.Now()
	rs.forget(now)
	past, generation := rs.recent[r.key], 0
	if past != nil {
		generation = past.generation
	}
	if len(rs.recent) >= maxRotations {
		return
	}
	rs.note(renewed, &rotation{generation: generation + 1}, now)
	rot := r.rotation
	if rot == nil {
		rot = newRotation()
	}
	if past != nil && !past.since.IsZero() || generation >= maxGenerations || !rot.since.IsZero() {
		return
	}
	r.rotation = rot
	rot.since, rot.generation = now, generation
	rs.note(r.key, rot, now)
	close(rot.replaced)
}

func (rs *rotations) note(key sessionlock.Key, rot *rotation, now time.Time) {
	if rs.recent == nil {
		rs.recent = make(map[sessionlock.Key]*rotation)
	}
	if rs.recent[key] == nil {
		rs.order = append(rs.order, aged{key, now})
	}
	rs.recent[key] = rot
}

// forget drops entries that are too old.
func (rs *rotations) forget(now time.Time) {
	n := 0
	for n < len(rs.order) && now.Sub(rs.order[n].at) > rotationMemory {
		delete(rs.recent, rs.order[n].key)
		n++
	}
	rs.order = rs.order[n:]
}

// leave notes that the response of r has been sent.
func (rs *rotations) leave(r *rotates) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.left = true
	rot := r.rotation
	if rot == nil {
		return
	}
	rot.ended = time.Now()
	close(rot.over)
	if rs.closed[r.key] == rot {
		delete(rs.closed, r.key)
	}
}

// during returns the rotation of key that happened, or may happen, during a wait from since to now. It also returns the
// rotation for which a request for target was redirected and came back with its old id; pause is retryTime then. It
// returns nil if there is none.
func (rs *rotations) during(key sessionlock.Key, since time.Time, target []byte) (rot *rotation, pause time.Duration) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rot = rs.recent[key]
	switch {
	case rot == nil:
		return rs.closed[key], settleTime
	case !rot.since.Before(since):
		return rot, settleTime
	case rot.ended.IsZero() || time.Since(rot.ended) > retryFor:
		return rs.closed[key], settleTime
	}
	if _, sent := rot.sentBack[maphash.Bytes(targetSeed, target)]; sent {
		return rot, retryTime
	}
	return nil, 0
}

var targetSeed = maphash.MakeSeed()

// sendBack notes that a request for target gets redirected.
func (rs *rotations) sendBack(rot *rotation, target []byte) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rot.sentBack == nil {
		rot.sentBack = make(map[uint64]struct{})
	}
	if len(rot.sentBack) < maxSentBack {
		rot.sentBack[maphash.Bytes(targetSeed, target)] = struct{}{}
	}
}

// awaitReplaced reports whether the id has been replaced. If PHP has destroyed the session, it waits for that until
// timeout or gone.
func (rot *rotation) awaitReplaced(timeout <-chan time.Time, gone <-chan struct{}) bool {
	select {
	case <-rot.replaced:
		return true
	default:
	}
	if rot.destroyed == nil || !rot.destroyed() {
		return false
	}
	select {
	case <-rot.replaced:
	case <-rot.over:
	case <-timeout:
	case <-gone:
	}
	select {
	case <-rot.replaced:
		return true
	default:
		return false
	}
}

// awaitSent waits until the response has been sent, and for pause after that, so that the browser has the new cookie.
// It returns early if the request is gone.
func (rot *rotation) awaitSent(pause time.Duration, gone <-chan struct{}) {
	timer := time.NewTimer(headerPatience)
	defer timer.Stop()
	select {
	case <-rot.over:
	case <-timer.C:
	case <-gone:
		return
	}
	timer.Reset(pause)
	select {
	case <-timer.C:
	case <-gone:
	}
}

// comesBack reports whether a redirect makes the client repeat the request with its current cookies. That requires a
// browser, a body that it can send twice, no headers that only the application knows (CORS), and a session id in a
// cookie.
func comesBack(params fcgi.Params, h *head, id []byte, rules *phpsession.Rules) bool {
	var sent fetch
	for name, value := range params.All() {
		sent.read(string(name), string(fcgi.CString(value)))
	}
	inCookie, ok := rules.ID(h.cookie, nil)
	return ok && bytes.Equal(id, inCookie) && sameAddress(string(h.target)) != "" && sent.follows(string(h.host))
}

// fetch is what a request's params say about the client and how it sends the request.
type fetch struct {
	site, mode    string // HTTP_SEC_FETCH_SITE and _MODE, which browsers send over HTTPS and to localhost
	agent, origin string // HTTP_USER_AGENT and HTTP_ORIGIN
	method        string
	length        string // CONTENT_LENGTH
}

func (f *fetch) read(name, value string) {
	switch name {
	case "HTTP_SEC_FETCH_SITE":
		f.site = value
	case "HTTP_SEC_FETCH_MODE":
		f.mode = value
	case "HTTP_USER_AGENT":
		f.agent = value
	case "HTTP_ORIGIN":
		f.origin = value
	case "REQUEST_METHOD":
		f.method = value
	case "CONTENT_LENGTH":
		f.length = value
	}
}

// follows reports whether the client is a browser that follows a redirect to the address of the request.
func (f *fetch) follows(host string) bool {
	if f.method != "GET" && f.method != "HEAD" && f.length == "" {
		return false // browsers do not send a stream twice
	}
	switch f.mode {
	case "navigate", "no-cors":
		return true
	case "":
		_, from, _ := strings.Cut(f.origin, "://")
		return strings.HasPrefix(f.agent, "Mozilla/") && (f.origin == "" || strings.EqualFold(from, host))
	}
	return f.site == "same-origin"
}

// sameAddress returns a relative reference to the address that a request was sent to. So proxies may have changed the
// path before its last segment, and the reference cannot lead to another host. It is empty if there is no path.
func sameAddress(target string) string {
	path, query, asks := strings.Cut(target, "?")
	segment := path[strings.LastIndexByte(path, '/')+1:]
	dots := strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
	if !strings.HasPrefix(path, "/") || dots == "." || dots == ".." || strings.ContainsFunc(target, notInAddress) {
		return ""
	}
	if asks {
		return "./" + segment + "?" + query
	}
	return "./" + segment
}

func notInAddress(c rune) bool { return c <= ' ' || c == 0x7f || c == '\\' || c == '#' }
