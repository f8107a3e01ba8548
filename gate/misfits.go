package gate

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
)

// Misfit is a sign that the session block of the config does not fit what PHP and the application do. The gate serves
// all the same, but does less for its visitors than it could.
type Misfit struct {
	Kind string // one of MisfitKinds
	Text string // what it is, and what to do
}

// The kinds of misfits.
const (
	NotOpened  = "not_opened"  // no session was ever seen opened in the place that is watched
	CookieName = "cookie_name" // no request had a session id, but cookies look like those of a session
)

// MisfitKinds lists all kinds.
func MisfitKinds() []string { return []string{NotOpened, CookieName} }

const (
	// unseenToReport is how many scripts of requests with a session id have to end, and none be seen to open its session.
	unseenToReport = 20
	// unnamedToReport is how many requests have to come or be answered with such a cookie, and none with a session id.
	unnamedToReport = 10
	// maxNames bounds the cookies that are named. Visitors can send any.
	maxNames   = 5
	maxNameLen = 64
)

// misfits looks for misfits of a setup and logs each once, and once when it is over.
type misfits struct {
	log     hclog.Logger
	place   string   // that is watched; empty: none
	cookies []string // of the config

	opened  atomic.Bool // a session was seen opened in that place
	matched atomic.Bool // a request had a session id, or a response set one

	mu      sync.Mutex
	unseen  int      // scripts that were not seen to open their session
	unnamed int      // requests with a cookie that looks like a session's
	names   []string // of those cookies
}

func newMisfits(o *Options, log hclog.Logger) *misfits {
	m := &misfits{log: log, cookies: o.Session.Cookies}
	if o.Watcher != nil {
		m.place = o.Watcher.Place()
	}
	return m
}

// all returns what does not fit now.
func (m *misfits) all() (all []Misfit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unseen >= unseenToReport && !m.opened.Load() {
		all = append(all, m.notOpened())
	}
	if m.unnamed >= unnamedToReport && !m.matched.Load() {
		all = append(all, m.cookieName())
	}
	return all
}

func (m *misfits) notOpened() Misfit {
	return Misfit{NotOpened, fmt.Sprintf("no session of this gate was ever seen opened in %s, by %d or more scripts that were "+
		"sent a session id: handler, save_path and key_prefix must be what PHP uses (session.save_handler, session.save_path, "+
		"memcached.sess_prefix; memcached.sess_locking on), and the application must not choose another place; "+
		"until then locks last until the script ends", m.place, unseenToReport)}
}

func (m *misfits) cookieName() Misfit {
	return Misfit{CookieName, fmt.Sprintf("no request of this gate had a session id, so nothing is locked; but there are cookies that look "+
		"like a session's: %s; if one of them is PHP's session.name, add it to cookies in the session block", strings.Join(m.names, ", "))}
}

// saw notes whether a script was seen to open the session whose id it was sent.
func (m *misfits) saw(seen bool) {
	if m.opened.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !seen {
		if m.unseen++; m.unseen == unseenToReport {
			m.log.Warn(m.notOpened().Text)
		}
		return
	}
	m.opened.Store(true)
	if m.unseen >= unseenToReport {
		m.log.Info("a session of this gate was seen opened now", "place", m.place)
	}
}

// found notes that a session id was found where the config says.
func (m *misfits) found() {
	if m.matched.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.matched.Store(true)
	if m.unnamed >= unnamedToReport {
		m.log.Info("a request of this gate had a session id now")
	}
}

// sent looks at the cookies of a request in which no session id was found.
func (m *misfits) sent(cookie []byte) {
	if m.matched.Load() {
		return
	}
	var names []string
	for pair := range bytes.SplitSeq(cookie, []byte(";")) {
		if name, _, _ := bytes.Cut(pair, []byte("=")); m.looksLikeSession(name) {
			names = append(names, string(bytes.TrimSpace(name)))
		}
	}
	if len(names) > 0 {
		m.note(names...)
	}
}

// set looks at a cookie that a response sets, and that is not the session's.
func (m *misfits) set(cookie []byte) {
	if m.matched.Load() {
		return
	}
	if name, _, _ := bytes.Cut(cookie, []byte("=")); m.looksLikeSession(name) {
		m.note(string(bytes.TrimSpace(name)))
	}
}

func (m *misfits) note(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if len(m.names) < maxNames && !slices.Contains(m.names, name) {
			m.names = append(m.names, name)
		}
	}
	if m.unnamed++; m.unnamed == unnamedToReport && !m.matched.Load() {
		m.log.Warn(m.cookieName().Text)
	}
}

// looksLikeSession reports whether a cookie's name is one that applications choose for a session, and fit for a log.
// One of the config's own names, with a value that is no session id, is not meant.
func (m *misfits) looksLikeSession(name []byte) bool {
	name = bytes.TrimSpace(name)
	if len(name) > maxNameLen || slices.Contains(m.cookies, string(name)) {
		return false
	}
	for _, c := range name {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	lower := bytes.ToLower(name)
	return bytes.Contains(lower, []byte("sess")) || bytes.HasSuffix(lower, []byte("sid"))
}
