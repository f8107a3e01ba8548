package gate

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/phpsession"
)

// Misfit is a sign that the session block of the config does not fit what PHP and the application do. The gate serves
// requests nevertheless, but locks sessions for longer than necessary, or not at all.
type Misfit struct {
	Kind string // one of MisfitKinds
	Text string // what does not fit, and what to do
}

// The kinds of misfits.
const (
	NotOpened  = "not_opened"  // no session was ever seen opened in the watched place
	CookieName = "cookie_name" // hardly a request had a session id, but a cookie's name looks like a session's
	CookieText = "cookie_text" // hardly a session cookie contained an id, by its format or pattern
	NoSession  = "no_session"  // hardly a request had a session id, and no cookie looks like a session's
)

// MisfitKinds lists all kinds.
func MisfitKinds() []string { return []string{NotOpened, CookieName, CookieText, NoSession} }

const (
	// unseenToReport is the number of scripts with a session id of which none was seen to open its session.
	unseenToReport = 20
	// unnamedToReport is the number of requests and responses with such a cookie while hardly any had a session id.
	unnamedToReport = 10
	// unreadToReport is the number of requests with a session cookie without an id while hardly any had an id.
	unreadToReport = 10
	// cookiesToReport is the number of requests with cookies while hardly any had a session id. Many sites have visitors
	// without a session, but few get a hundred such requests in a row.
	cookiesToReport = 100
	// Any visitor can send an id where the config expects it, so a few prove nothing: there must be idsToBelieve of them,
	// and one for each shareToBelieve of the other requests. An id that a response sets is proof.
	idsToBelieve   = 20
	shareToBelieve = 20
	// maxNames bounds the cookies that are named, because visitors can send any.
	maxNames   = 5
	maxCounted = 64 // cookies among which the most frequent are found
	maxNameLen = 64
)

// misfits detects the misfits of a setup. It logs each once, and once when it is over.
type misfits struct {
	log     hclog.Logger
	place   string // the watched place; empty: none
	session *phpsession.Rules
	suggest func(names []string) string

	opened  atomic.Bool // a session was seen opened in that place
	matched atomic.Bool // the config fits: a response set a session id, or many requests had one

	mu      sync.Mutex
	ids     int            // requests with a session id
	logged  []bool         // by cookieMisfits
	unseen  int            // scripts that were not seen to open their session
	unnamed int            // requests with a cookie that looks like a session's
	names   []string       // of those cookies
	unread  int            // requests whose session cookie had no id in it
	cookied int            // requests with cookies but without a session id
	counts  map[string]int // of them, by the names of their cookies
}

func newMisfits(o *Options, log hclog.Logger) *misfits {
	m := &misfits{
		log: log, session: &o.Session, suggest: o.Suggest,
		logged: make([]bool, len(cookieMisfits)), counts: make(map[string]int),
	}
	if o.Watcher != nil {
		m.place = o.Watcher.Place()
	}
	return m
}

// all returns the current misfits.
func (m *misfits) all() (all []Misfit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unseen >= unseenToReport && !m.opened.Load() {
		all = append(all, m.notOpened())
	}
	for _, kind := range cookieMisfits {
		if kind.is(m) {
			all = append(all, kind.describe(m))
		}
	}
	return all
}

// cookieMisfits are the misfits of the cookies: whether there is one now, and its description. Both are called with mu
// held.
var cookieMisfits = []struct {
	is       func(*misfits) bool
	describe func(*misfits) Misfit
}{
	{(*misfits).lacksText, (*misfits).cookieText},
	{(*misfits).lacksName, (*misfits).cookieName},
	{(*misfits).lacksSession, (*misfits).noSession},
}

func (m *misfits) lacksText() bool { return !m.matched.Load() && m.exceeds(m.unread, unreadToReport) }
func (m *misfits) lacksName() bool { return !m.matched.Load() && m.exceeds(m.unnamed, unnamedToReport) }

// lacksSession is for cookies that nothing else is known of.
func (m *misfits) lacksSession() bool {
	return !m.matched.Load() && m.exceeds(m.cookied, cookiesToReport) && !m.lacksName() && m.unread < unreadToReport
}

// exceeds reports whether n requests without an id are enough to be reported, next to those with one.
func (m *misfits) exceeds(n, enough int) bool { return n >= enough && n > shareToBelieve*m.ids }

// logOnce logs each misfit of the cookies when it begins. It is called with each request until one has a session id, so
// no text is made before. The caller holds mu.
func (m *misfits) logOnce() {
	for i, kind := range cookieMisfits {
		if !m.logged[i] && kind.is(m) {
			m.logged[i] = true
			m.log.Warn(kind.describe(m).Text)
		}
	}
}

// few starts the text of a misfit of the cookies.
func (m *misfits) few() string {
	switch m.ids {
	case 0:
		return "no request of this gate had a session id, so nothing is locked"
	case 1:
		return "only one request of this gate had a session id, as any visitor can send, so nothing else is locked"
	}
	const text = "only %d requests of this gate had a session id, as any visitor can send, so nothing else is locked"
	return fmt.Sprintf(text, m.ids)
}

func (m *misfits) notOpened() Misfit {
	return Misfit{NotOpened, fmt.Sprintf("no session of this gate was ever seen opened in %s, by %d or more scripts that"+
		" were sent a session id: handler, save_path and key_prefix must match PHP's session.save_handler,"+
		" session.save_path and memcached.sess_prefix (with memcached.sess_locking on), and the application must not"+
		" choose another place; until then locks last until the script ends", m.place, unseenToReport)}
}

func (m *misfits) cookieName() Misfit {
	return Misfit{CookieName, fmt.Sprintf("%s; but some cookies look like a session's: %s; if one of them is PHP's"+
		" session.name, add it to cookies in the session block%s",
		m.few(), strings.Join(m.names, ", "), m.suggestion(m.names))}
}

func (m *misfits) cookieText() Misfit {
	hint := "id_pattern must match the values of the session cookie"
	if m.session.Format != nil {
		hint = "keys must be those of the application (APP_KEY and APP_PREVIOUS_KEYS of Laravel), and the cookie must be" +
			" encrypted"
	}
	return Misfit{CookieText, fmt.Sprintf("%s; but %d or more had a cookie named %s without one in it: %s",
		m.few(), unreadToReport, strings.Join(m.session.Cookies, " or "), hint)}
}

func (m *misfits) noSession() Misfit {
	names := m.mostFrequent()
	which := "whose names cannot be shown"
	if len(names) > 0 {
		which = "most of them " + strings.Join(names, ", ")
	}
	return Misfit{NoSession, fmt.Sprintf("%s; %d or more had other cookies, %s; if one of them is the session's, add"+
		" it to cookies in the session block%s",
		m.few(), cookiesToReport, which, m.suggestion(slices.Collect(maps.Keys(m.counts))))}
}

// suggestion returns an alternative for the config, as the end of a sentence.
func (m *misfits) suggestion(names []string) string {
	if m.suggest == nil {
		return ""
	}
	slices.Sort(names)
	if s := m.suggest(names); s != "" {
		return ", or write " + s
	}
	return ""
}

// mostFrequent returns the names of the cookies that came with most requests.
func (m *misfits) mostFrequent() []string {
	names := slices.SortedFunc(maps.Keys(m.counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(m.counts[b], m.counts[a]), strings.Compare(a, b))
	})
	return names[:min(len(names), maxNames)]
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
		m.log.Info("a session of this gate has been seen opened", "place", m.place)
	}
}

// found notes a request whose session id was found where the config expects it.
func (m *misfits) found() {
	if m.matched.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids++
	if others := max(m.unnamed, m.unread, m.cookied); m.ids >= idsToBelieve && others <= shareToBelieve*m.ids {
		m.match()
	}
}

// isSet notes a response that sets a session id where the config expects it.
func (m *misfits) isSet() {
	if m.matched.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.match()
}

// match notes that the config fits. The caller holds mu.
func (m *misfits) match() {
	if slices.Contains(m.logged, true) && !m.matched.Load() {
		m.log.Info("the requests of this gate have session ids now")
	}
	m.matched.Store(true)
}

// sent examines the cookies of a request without a session id.
func (m *misfits) sent(cookie []byte) {
	if m.matched.Load() || len(cookie) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	counting := m.cookied < cookiesToReport
	for pair := range bytes.SplitSeq(cookie, []byte(";")) {
		name, _, _ := bytes.Cut(pair, []byte("="))
		if counting {
			m.count(name)
		}
		if m.looksLikeSession(name) {
			names = append(names, string(bytes.TrimSpace(name)))
		}
	}
	m.cookied++
	if len(names) > 0 {
		m.note(names...)
	}
	m.logOnce()
}

// count counts a cookie by its name. The caller holds mu.
func (m *misfits) count(name []byte) {
	name = bytes.TrimSpace(name)
	if !fitForLog(name) || m.session.Names(name) {
		return
	}
	if _, known := m.counts[string(name)]; known || len(m.counts) < maxCounted {
		m.counts[string(name)]++
	}
}

// sawUnread notes a request whose session cookie contained no id.
func (m *misfits) sawUnread() {
	if m.matched.Load() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unread++
	m.logOnce()
}

// set examines a cookie that a response sets and that is not a session's.
func (m *misfits) set(cookie []byte) {
	if m.matched.Load() {
		return
	}
	if name, _, _ := bytes.Cut(cookie, []byte("=")); m.looksLikeSession(name) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.note(string(bytes.TrimSpace(name)))
		m.logOnce()
	}
}

// note notes a request or response with cookies that look like a session's. The caller holds mu.
func (m *misfits) note(names ...string) {
	for _, name := range names {
		if len(m.names) < maxNames && !slices.Contains(m.names, name) {
			m.names = append(m.names, name)
		}
	}
	m.unnamed++
}

// looksLikeSession reports whether a cookie's name looks like a session's and may appear in a log. The config's own
// names do not count.
func (m *misfits) looksLikeSession(name []byte) bool {
	name = bytes.TrimSpace(name)
	if !fitForLog(name) || m.session.Names(name) {
		return false
	}
	lower := bytes.ToLower(name)
	return bytes.Contains(lower, []byte("sess")) || bytes.HasSuffix(lower, []byte("sid"))
}

// fitForLog reports whether a cookie's name may appear in a log. Visitors can send any.
func fitForLog(name []byte) bool {
	for _, c := range name {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return 0 < len(name) && len(name) <= maxNameLen
}
