package phpsession

import (
	"bytes"
	"errors"
	"iter"
	"strconv"
	"strings"
	"time"
)

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

// readCookies registers every cookie of the header. It reads on after a match, because an array
// replaces a string, and a name that is nested too deep deletes it.
func (v *variable) readCookies(header []byte, maxTokens int) {
	for name, value := range cookies(header, maxTokens) {
		v.register(name, value)
	}
}

// cookies yields the tokens of a cookie header that PHP registers, at most maxTokens of them. Names are not decoded:
// that was CVE-2020-7070.
func cookies(header []byte, maxTokens int) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for len(header) > 0 {
			var token []byte
			token, header = cutToken(header, ';')
			name, value := cutValue(token)
			name = trimSpace(name)
			if len(name) == 0 {
				continue // neither "; ;" nor "=x" counts
			}
			if maxTokens--; maxTokens < 0 || !yield(name, value) {
				return
			}
		}
	}
}

// cutToken returns the bytes before the first separator and those after it.
func cutToken(input []byte, separator byte) (token, rest []byte) {
	if end := bytes.IndexByte(input, separator); end >= 0 {
		return input[:end], input[end+1:]
	}
	return input, nil
}

// cutValue splits a token at its first '='. Without one its value is empty.
func cutValue(token []byte) (name, value []byte) {
	if eq := bytes.IndexByte(token, '='); eq >= 0 {
		return token[:eq], token[eq+1 : len(token) : len(token)]
	}
	return token, nil
}

// trimSpace cuts leading white space. Trailing white space is part of the name.
func trimSpace(name []byte) []byte {
	for len(name) > 0 && isSpace(name[0]) {
		name = name[1:]
	}
	return name
}

// isSpace is C's isspace in the locale that PHP runs in: no byte above 0x7f is a space.
func isSpace(c byte) bool {
	return c == ' ' || '\t' <= c && c <= '\r'
}

// FromSetCookie reads the value of one Set-Cookie response header. It returns the id that PHP
// gives the browser under one of r.Cookies: what ID will find when the browser sends it back. It
// returns false for another cookie, for one that is deleted by this header, and for an id that is not valid.
// The id may be a part of value.
func (r *Rules) FromSetCookie(value []byte) (id []byte, ok bool) {
	pair, attributes := cutToken(cString(value), ';')
	name, raw := cutValue(pair)
	name, raw = trimSpace(bytes.TrimRight(name, " \t")), bytes.Trim(raw, " \t") // as browsers do
	if string(raw) == "deleted" || expired(attributes) {
		return nil, false // PHP's setcookie() deletes with the value "deleted" and Max-Age=0
	}
	unread := false
	for _, want := range r.Cookies {
		v, ok := r.newMatching(want, name)
		if !ok {
			continue
		}
		v.register(name, raw)
		if v.kind != text {
			continue
		}
		if id, ok := r.idIn(v.name, decode(nil, v.value, false), &unread); ok {
			return id, true
		}
	}
	return nil, false
}

// expired reports whether a browser drops a cookie with these attributes. As in RFC 6265, section 5.3, the last of
// several attributes of a name counts, and Max-Age takes precedence over Expires.
func expired(attributes []byte) bool {
	var byMaxAge, byDate, hasMaxAge bool
	for len(attributes) > 0 {
		var attribute []byte
		attribute, attributes = cutToken(attributes, ';')
		name, value := cutValue(attribute)
		argument := string(bytes.TrimSpace(value))
		switch strings.ToLower(string(bytes.TrimSpace(name))) {
		case "max-age":
			if over, valid := parseMaxAge(argument); valid {
				byMaxAge, hasMaxAge = over, true
			}
		case "expires":
			if when, valid := parseExpires(argument); valid {
				byDate = !when.After(time.Now())
			}
		}
	}
	if hasMaxAge {
		return byMaxAge
	}
	return byDate
}

// parseMaxAge parses a number of seconds. A number out of range becomes the nearest one, which suffices.
func parseMaxAge(s string) (over, valid bool) {
	seconds, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) || s[0] == '+' {
		return false, false
	}
	return seconds <= 0, true
}

// parseExpires parses the date formats that PHP and its frameworks have used over the years.
func parseExpires(s string) (when time.Time, valid bool) {
	for _, layout := range [...]string{time.RFC1123, "Mon, 02-Jan-2006 15:04:05 MST", time.RFC850, time.ANSIC} {
		if when, err := time.Parse(layout, s); err == nil {
			return when, true
		}
	}
	return time.Time{}, false
}
