package phpsession

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
)

// readCookies registers every cookie of the header. It reads on after a match, because an array
// replaces a string, and a name that is nested too deep deletes it.
func (v *variable) readCookies(header []byte, maxTokens int) {
	for name, value := range cookies(header, maxTokens) {
		v.register(name, value)
	}
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
