package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/zclconf/go-cty/cty"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// The kinds of names, paths and patterns. A key whose default is "" accepts "" too.

var text = kind[string]{"a string", func(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", errors.New("must not contain a NUL")
	}
	return s, nil
}}

// blockName is the name of a gate or a route. It appears verbatim in logs, metrics and URLs.
var blockName = matching(`letters, digits, ".", "_" and "-", at most 64`, `^[A-Za-z0-9._-]{1,64}$`)

var (
	realm     = matching("a string of 1 to 255 characters without spaces", `^[^\s\x00-\x1f\x7f]{1,255}$`)
	account   = matching("the name of a user or group, or its number", `^([A-Za-z0-9_][A-Za-z0-9_.-]*\$?)?$`)
	paramName = matching(`the name of a FastCGI param such as "SESSION_ID"`, `^([A-Za-z_][A-Za-z0-9_]*)?$`)
	// memcached reads user and password from one line, separated by a space.
	credential = matching("a string without spaces and control characters, at most 255", `^[^\s\x00-\x1f\x7f]{0,255}$`)
	fileName   = matching("the absolute path of a file", `^(/[^\x00-\x1f\x7f]+)?$`)
	pagePath   = matching(`a path such as "/ping"`, `^(/[^\s?#\x00-\x1f\x7f]*)?$`)

	// A memcached key has at most 250 bytes, including the hash, and no spaces. php-memcached accepts prefixes of at
	// most 218 bytes.
	sessionKeyPrefix = matching("memcached.sess_prefix: at most 218 letters, digits and signs, without spaces",
		`^[!-~]{0,218}$`)
	keyPrefix = matching("1 to 100 letters, digits and signs, without spaces", `^[!-~]{1,100}$`)
)

// matching is the kind of a text that matches a pattern, which must be anchored.
func matching(form, pattern string) kind[string] {
	// Compiled where it is needed: compiling all of them was a quarter of the time that any command took to start.
	re := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
	return kind[string]{form, func(s string) (string, error) {
		if !re().MatchString(s) {
			return "", errForm
		}
		return s, nil
	}}
}

// sessionName is a name that PHP accepts as session.name. No request could have a session of another name.
var sessionName = kind[string]{"a name that PHP accepts as session.name", func(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("must not be empty")
	case numeric.MatchString(s):
		return "", errors.New("must not be a number, which PHP refuses as session.name")
	case strings.ContainsAny(s, "=,;.[ \t\r\n\013\014\x00"):
		return "", formHint("PHP 8.4 accepts no name that contains = , ; . [ or white space; " +
			"older versions lose the session with most of them.")
	}
	return s, nil
}}

// cookieName is a sessionName, or a pattern of several.
var cookieName = kind[string]{`a name that PHP accepts as session.name, or a pattern such as "SESS*"`,
	func(s string) (string, error) {
		if fixed := inPattern.ReplaceAllString(s, "x"); fixed != s {
			_, err := sessionName.parse(fixed)
			return s, err
		}
		return sessionName.parse(s)
	}}

// inPattern matches the parts of a cookie's name that stand for others.
var inPattern = regexp.MustCompile(`[*?]+`)

// fixedLetters counts what a pattern of cookieName demands of a name.
func fixedLetters(pattern string) int { return len(inPattern.ReplaceAllString(pattern, "")) }

// maxIDPattern is far beyond any pattern with a purpose.
const maxIDPattern = 1000

// idPattern is compiled here, once. Visitors choose the cookies, and RE2's time is linear in their length.
var idPattern = kind[*regexp.Regexp]{`a regular expression such as "^([^|]+)", in the syntax of RE2`,
	func(s string) (*regexp.Regexp, error) {
		switch {
		case s == "":
			return nil, nil
		case len(s) > maxIDPattern:
			return nil, fmt.Errorf("must have at most %d characters", maxIDPattern)
		}
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, formHint(strings.TrimPrefix(err.Error(), "error parsing regexp: ") + ".")
		}
		return re, nil
	}}

// application sets the defaults of a gate to what is known of an application.
func application(g *Gate) setter {
	return func(v cty.Value) []fault {
		if !v.IsNull() && v.Type() == cty.String && v.AsString() == "" {
			return nil
		}
		faults := setOne(&g.Session.Application, choice(applicationNames()...))(v)
		if faults == nil {
			apply(g.Session.Application, g)
		}
		return faults
	}
}

// appKeys sets Laravel's keys. Each element is an APP_KEY or, as in APP_PREVIOUS_KEYS, several with commas between; an
// empty one is none, so that a variable may be unset. Its faults never show a value.
func appKeys(to *[][]byte) setter {
	return func(v cty.Value) (faults []fault) {
		const form = `Laravel's APP_KEY: "base64:" and 16 or 32 bytes in base64`
		if v.IsNull() || !(v.Type().IsTupleType() || v.Type().IsListType()) {
			return []fault{newFault(v, errForm, "a list, each element "+form).withoutValue()}
		}
		var all [][]byte
		for i, element := range v.AsValueSlice() {
			keys, err := kind[[][]byte]{form, parseAppKeys}.read(element)
			if err != nil {
				f := newFault(element, err, form).withoutValue()
				f.element = i
				faults = append(faults, f)
			}
			all = append(all, keys...)
		}
		if faults == nil {
			*to = all
		}
		return faults
	}
}

// parseAppKeys parses what Laravel accepts as APP_KEY or APP_PREVIOUS_KEYS. Its errors have no hint, which could show a
// part of a key.
func parseAppKeys(s string) (keys [][]byte, err error) {
	const encodedPrefix = "base64:"
	if n := len(s); (n == 16 || n == 32) && !strings.HasPrefix(s, encodedPrefix) { // which may have a comma in it
		return [][]byte{[]byte(s)}, nil
	}
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		raw := []byte(text)
		if encoded, is := strings.CutPrefix(text, encodedPrefix); is {
			if raw, err = base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, errForm
			}
		}
		switch len(raw) {
		case 0:
		case 16, 32:
			keys = append(keys, raw)
		default:
			return nil, errForm
		}
	}
	return keys, nil
}

// numeric matches what PHP takes for a number, of those texts without "." and spaces.
var numeric = regexp.MustCompile(`^[+-]?[0-9]+([eE][+-]?[0-9]+)?$`)

// pathPattern is checked here; package gate matches it.
var pathPattern = kind[string]{
	`a path such as "/cart", "/api/*" (one more segment) or "/api/**" (everything below)`,
	func(s string) (string, error) {
		fixed := s
		for _, wild := range []string{"/**", "/*"} {
			if rest, ok := strings.CutSuffix(s, wild); ok {
				fixed = rest
				break
			}
		}
		switch {
		case !strings.HasPrefix(s, "/") || hasControl(s):
			return "", errForm
		case strings.Contains(fixed, "*"):
			return "", formHint(`A "*" is allowed only at the end, for whole segments.`)
		case strings.Contains(fixed, "?"):
			return "", formHint("A pattern is compared with the path, without the query string.")
		case escape.MatchString(fixed):
			return "", formHint("A pattern is compared with the decoded path: write what %XX stands for.")
		case neverPlain(s):
			return "", formHint("A path with \"//\", a segment \".\" or \"..\", a backslash or \"#\" matches no pattern.")
		}
		return s, nil
	},
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// neverPlain reports whether package gate matches no path that is written so: it may be read in different ways.
func neverPlain(path string) bool {
	isDots := func(segment string) bool { return segment == "." || segment == ".." }
	return strings.Contains(path, "//") || strings.ContainsAny(path, `\#`) ||
		slices.ContainsFunc(strings.Split(path, "/"), isDots)
}

// methodForm is stricter than HTTP's token: methods are case-sensitive, and those in use are in capitals.
var methodForm = regexp.MustCompile(`^[A-Z][A-Z0-9_-]*$`)

var method = kind[string]{`a method in capitals such as "POST"`, func(s string) (string, error) {
	switch upper := strings.ToUpper(s); {
	case methodForm.MatchString(s):
		return s, nil
	case methodForm.MatchString(upper):
		return "", formHint(fmt.Sprintf("Did you mean %q?", upper))
	}
	return "", errForm
}}

// hostName lowers the name, as the gate does with a request's Host header.
var hostName = kind[string]{`a host name such as "shop.example.org", without a port`, func(s string) (string, error) {
	if !isHost(s) {
		return "", errForm
	}
	return strings.ToLower(s), nil
}}

// savePathFolder parses the session.save_path of PHP's handler files: "/path", "depth;/path" or "depth;mode;/path".
func savePathFolder(s string) (folder string, depth int, err error) {
	parts := strings.Split(s, ";")
	folder = parts[len(parts)-1]
	ok := len(parts) <= 3 && strings.HasPrefix(folder, "/") && !hasControl(folder)
	if len(parts) > 1 {
		// PHP names each level of folders by one character of the id. The shortest id has 22.
		depth, err = strconv.Atoi(parts[0])
		ok = ok && err == nil && 0 <= depth && depth < 22
	}
	if !ok {
		return "", 0, errForm
	}
	return folder, depth, nil
}

// savePathServers parses the session.save_path of PHP's handler memcached: "host:port" or the path of a socket, or
// several of them separated by commas.
func savePathServers(s string) (servers []netaddr.Addr, err error) {
	for server := range strings.SplitSeq(s, ",") {
		server = strings.TrimSpace(server)
		// php-memcached takes a unix socket with the port 0, or without one.
		if strings.HasPrefix(server, "/") {
			server = "unix:" + strings.TrimSuffix(server, ":0")
		}
		a, err := dialAddress.parse(server)
		if err != nil {
			return nil, errForm
		}
		servers = append(servers, a)
	}
	return servers, nil
}
