// Package phpsession finds, before PHP runs, the session id that PHP will find.
//
// A lock that is taken for another id than PHP's is no lock: a visitor who knows a header that PHP
// reads one way and we another slips past it on purpose. So the header is read by PHP's rules,
// oddities included, and real PHP is the referee of the tests. They are the rules of PHP 8.
//
// Only the params of a request are looked at. An id in a POST body, or one that the application
// gives to session_id() itself, is out of sight here. Nothing is kept between two calls.
package phpsession

import (
	"cmp"
	"regexp"
)

// Rules are the PHP settings that decide which session id session_start() takes.
// The zero value looks nowhere. Rules can be used concurrently as long as they are not changed.
type Rules struct {
	// Cookies are the values of session.name, one or several: the first one under which the
	// cookie header has an id counts. With several, a visitor chooses between them by what it
	// sends, so applications that share nothing but a gate are better told apart by Rules of
	// their own. Names are compared as PHP compares them: one with a '.', a space or a '[' in it
	// matches no cookie at all, since PHP stores none under such a name. PHP 8.4 accepts no such
	// session.name, nor one with '=', ',', ';' or other white space. A name with '*' (any characters)
	// or '?' (one character) is a pattern, for names that end in a hash: all cookies that match are
	// looked at in the order of $_COOKIE, and the first that has an id counts.
	Cookies []string

	// IDPattern takes the id out of a cookie's value: its first group, or the whole match if it has none.
	// A value that does not match has no id. Nil: the value is the id.
	IDPattern *regexp.Regexp

	// Format opens values that are no ids themselves, before IDPattern. Nil: the value is as PHP has it.
	Format Format

	// Unread, if not nil, is called by ID when no cookie has an id, but one of these names has a value in which
	// Format or IDPattern find none. It must be quick, and it may be called by several goroutines at once.
	Unread func()

	// Query are names that are looked up in the query string after all Cookies, for PHP with
	// session.use_only_cookies=0. A name that Cookies stand for too is looked up only if the cookie
	// header has no string under it, not even an empty one.
	Query []string

	// Files says that session.save_handler is files. An id that this handler refuses makes
	// session_start() fail without a lock, so it is none.
	Files bool

	// Depth is the depth in the files handler's save_path: 2 for "2;/path". An id must be longer.
	Depth int

	// MaxInputVars is PHP's max_input_vars; 0 means its default, 1000. It has to be PHP's own
	// number: cookies beyond it are ignored, and a visitor can send any number of them.
	MaxInputVars int

	// MaxInputNesting is PHP's max_input_nesting_level; 0 means its default, 64.
	MaxInputNesting int
}

// Format is how an application writes a session id into its cookie, if not plainly.
type Format interface {
	// Open returns the id in the value of the cookie of that name, or false if there is none. The value is decoded;
	// Open keeps no part of it.
	Open(name string, value []byte) (id []byte, ok bool)
}

const (
	defaultMaxInputVars    = 1000
	defaultMaxInputNesting = 64
)

// ID returns the id that session_start() will take, or false if PHP would make a new one. The
// params HTTP_COOKIE and QUERY_STRING are passed as they came, of a repeated one the last.
//
// The id may be a part of cookie or query and is then valid as long as they are. Without patterns and
// Format, ID allocates only if something must be decoded or the session cookie is written as an array.
func (r *Rules) ID(cookie, query []byte) (id []byte, ok bool) {
	cookie = cString(cookie)
	unread := false // a cookie had a value, and no id in it
	for _, name := range r.Cookies {
		if IsPattern(name) {
			id, ok = r.fromPattern(cookie, name, &unread)
		} else if value, found := r.fromCookie(cookie, name); found {
			id, ok = r.idIn(name, value, &unread)
		}
		if ok {
			return id, true
		}
	}
	if unread && r.Unread != nil {
		r.Unread()
	}
	if len(r.Query) == 0 {
		return nil, false
	}
	query = cString(query)
	for _, name := range r.Query {
		if r.decidedByCookie(cookie, name) {
			continue
		}
		if id, found := r.fromQuery(query, name); found && r.Valid(id) {
			return id, true
		}
	}
	return nil, false
}

// idIn returns the id in the value of a cookie. It sets unread if Format or IDPattern find none in it.
func (r *Rules) idIn(name string, value []byte, unread *bool) (id []byte, ok bool) {
	id, ok = value, true
	if r.Format != nil {
		id, ok = r.Format.Open(name, value)
	}
	if ok && r.IDPattern != nil {
		id, ok = r.part(id)
	}
	if !ok {
		*unread = *unread || len(value) > 0
		return nil, false
	}
	if !r.Valid(id) {
		return nil, false
	}
	return id, true
}

// part returns what IDPattern takes of a value.
func (r *Rules) part(value []byte) (id []byte, ok bool) {
	at := r.IDPattern.FindSubmatchIndex(value)
	switch {
	case at == nil:
		return nil, false
	case len(at) == 2:
		return value[at[0]:at[1]:at[1]], true
	case at[2] < 0: // another alternative has matched
		return nil, false
	}
	return value[at[2]:at[3]:at[3]], true
}

// decidedByCookie reports whether PHP ignores the query string: any string that the cookie header has under the name
// wins, and if it is not a valid id, PHP makes a new one.
func (r *Rules) decidedByCookie(cookie []byte, name string) bool {
	if !r.Names([]byte(name)) {
		return false
	}
	_, found := r.fromCookie(cookie, name)
	return found
}

// Valid reports whether PHP starts a session under this id, wherever the id came from. It is for ids that a web server
// passes; ids from ID and FromSetCookie are valid.
func (r *Rules) Valid(id []byte) bool {
	// PHP uses strpbrk and str[0], which see nothing after a NUL.
	seen := cString(id)
	if len(seen) == 0 {
		return false
	}
	if r.Files {
		return r.validForFiles(id)
	}
	for _, c := range seen {
		switch c {
		case '\r', '\n', '\t', ' ', '<', '>', '\'', '"', '\\':
			return false
		}
	}
	return true
}

// maxFileID is what NAME_MAX (255 bytes) leaves of "sess_<id>". PHP itself would allow 256.
const maxFileID = 250

// validForFiles reports whether the files handler can open a file for the id. The file's name ends at a NUL, but PHP
// compares the whole length with the depth, and names the folders by the whole id. PHP 8.4 refuses an id with a NUL;
// the request then takes the lock of the part before the NUL, which does no harm.
func (r *Rules) validForFiles(id []byte) bool {
	seen := cString(id)
	if len(seen) > maxFileID || len(id) <= r.Depth || len(seen) < r.Depth {
		return false
	}
	for _, c := range seen {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == ',' || c == '-') {
			return false
		}
	}
	return true
}

// LockName returns the part of an id that two requests must share a lock by. The files and memcached
// handlers end an id at its first NUL, so that abc%00def is the session of abc; for handlers that
// tell the two apart, sharing a lock does no harm. LockName returns a part of id.
func LockName(id []byte) []byte {
	return cString(id)
}

// fromCookie returns the string that $_COOKIE has under the name, decoded; found is false if it has
// nothing there, or an array. The header has no NUL.
func (r *Rules) fromCookie(header []byte, name string) (value []byte, found bool) {
	v, maxTokens := r.newVariable(name)
	v.firstWins = true
	v.readCookies(header, maxTokens)
	if v.kind != text {
		return nil, false
	}
	return decode(nil, v.value, false), true
}

// fromQuery returns the string that $_GET has under the name, decoded; found is false if it has nothing there, or an
// array. The query must contain no NUL.
func (r *Rules) fromQuery(query []byte, name string) (value []byte, found bool) {
	v, maxTokens := r.newVariable(name)
	v.readQuery(query, maxTokens)
	if v.kind != text {
		return nil, false
	}
	return decode(nil, v.value, true), true
}

// newVariable returns the variable of this name before any input is read, and how many tokens count.
func (r *Rules) newVariable(name string) (v variable, maxTokens int) {
	v.name = name
	v.maxNesting = cmp.Or(r.MaxInputNesting, defaultMaxInputNesting)
	return v, cmp.Or(r.MaxInputVars, defaultMaxInputVars)
}
