// Package phpsession finds, before PHP runs, the session id that PHP will find.
//
// A lock that is taken for another id than PHP's is no lock: a visitor who knows a header that PHP
// reads one way and we another slips past it on purpose. So the header is read by PHP's rules,
// oddities included, and real PHP is the referee of the tests. The rules are those of PHP 8.
//
// Only the params of a request are looked at. An id in a POST body, or one that the application
// gives to session_id() itself, is out of sight here. Nothing is kept between two calls.
package phpsession

import (
	"bytes"
	"cmp"
	"slices"
)

// Rules are the PHP settings that decide which session id session_start() takes.
// The zero value looks nowhere. Rules may be used by several goroutines as long as nobody changes them.
type Rules struct {
	// Cookies are the values of session.name, one or several: the first one under which the
	// cookie header has an id counts. With several, a visitor chooses between them by what he
	// sends, so applications that share nothing but a gate are better told apart by Rules of
	// their own. Names are compared as PHP compares them: one with a '.', a space or a '[' in it
	// matches no cookie at all, since PHP stores none under such a name. PHP 8.4 accepts no such
	// session.name, nor one with '=', ',', ';' or other white space.
	Cookies []string

	// Query are names that are looked up in the query string after all Cookies, for PHP with
	// session.use_only_cookies=0. A name that is one of Cookies too is looked up only if the cookie
	// header has no string under it, not even an empty one.
	Query []string

	// Files says that session.save_handler is files. An id that this handler refuses makes
	// session_start() fail without a lock, so it is none.
	Files bool

	// Depth is that of the files handler's save_path: 2 for "2;/path". An id must be longer.
	Depth int

	// MaxInputVars is PHP's max_input_vars; 0 means its default, 1000. It has to be PHP's own
	// number: cookies beyond it are ignored, and a visitor may send as many as he likes.
	MaxInputVars int

	// MaxInputNesting is PHP's max_input_nesting_level; 0 means its default, 64.
	MaxInputNesting int
}

const (
	defaultMaxInputVars    = 1000
	defaultMaxInputNesting = 64
)

// ID returns the id that session_start() will take, or false if PHP would make a new one. The
// params HTTP_COOKIE and QUERY_STRING are passed as they came, of a repeated one the last.
//
// The id may be a part of cookie or query and is then valid as long as they are. ID allocates
// only if something must be decoded or the session cookie is written as an array.
func (r *Rules) ID(cookie, query []byte) (id []byte, ok bool) {
	cookie = cString(cookie)
	for _, name := range r.Cookies {
		if id, found := r.fromCookie(cookie, name); found && r.Valid(id) {
			return id, true
		}
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

// decidedByCookie tells whether PHP leaves the query string alone: whatever string the cookie
// header has under the name wins, and if that is no valid id PHP makes a new one.
func (r *Rules) decidedByCookie(cookie []byte, name string) bool {
	if !slices.Contains(r.Cookies, name) {
		return false
	}
	_, found := r.fromCookie(cookie, name)
	return found
}

// Valid tells whether PHP starts a session under this id, wherever the id came from. It is for ids
// that a web server hands over; those from ID and FromSetCookie are valid.
func (r *Rules) Valid(id []byte) bool {
	// PHP asks strpbrk and str[0], C functions that see nothing behind a NUL.
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

// validForFiles tells whether the files handler can open a file for the id. The file's name ends
// at a NUL, but PHP compares the whole length with the depth, and names the folders by the whole id. PHP 8.4
// refuses an id with a NUL; there the request takes the lock of the id before the NUL, which does no harm.
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

// cString cuts b where C sees its end.
func cString(b []byte) []byte {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		return b[:end:end]
	}
	return b
}

// newVariable returns the variable of this name before any input is read, and how many tokens count.
func (r *Rules) newVariable(name string) (v variable, maxTokens int) {
	v.name = name
	v.maxNesting = cmp.Or(r.MaxInputNesting, defaultMaxInputNesting)
	return v, cmp.Or(r.MaxInputVars, defaultMaxInputVars)
}
