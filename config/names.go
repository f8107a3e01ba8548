package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The kinds of names, paths and patterns. What is "" by default may be given as "" too.

var text = kind[string]{"a string", func(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", errors.New("must not contain a NUL")
	}
	return s, nil
}}

// blockName names a gate or a route. It stands in logs, metrics and URLs as it is.
var blockName = matching(`letters, digits, ".", "_" and "-", at most 64`, `^[A-Za-z0-9._-]{1,64}$`)

var (
	realm     = matching("a string of 1 to 255 characters without spaces", `^[^\s\x00-\x1f\x7f]{1,255}$`)
	account   = matching("the name of a user or group, or its number", `^([A-Za-z0-9_][A-Za-z0-9_.-]*\$?)?$`)
	paramName = matching(`the name of a FastCGI param such as "SESSION_ID"`, `^([A-Za-z_][A-Za-z0-9_]*)?$`)
	// memcached is told user and password on one line, with a space between.
	credential = matching("a string without spaces and control characters, at most 255", `^[^\s\x00-\x1f\x7f]{0,255}$`)
	fileName   = matching("the whole path of a file", `^(/[^\x00-\x1f\x7f]+)?$`)
	pagePath   = matching(`a path such as "/ping"`, `^(/[^\s?#\x00-\x1f\x7f]*)?$`)

	// A key of memcached has at most 250 bytes, none of them a space; the hash needs its share.
	// php-memcached takes at most 218 bytes, less than what a lock and a session id leave.
	sessionKeyPrefix = matching("memcached.sess_prefix: at most 218 letters, digits and signs, without spaces", `^[!-~]{0,218}$`)
	keyPrefix        = matching("1 to 100 letters, digits and signs, without spaces", `^[!-~]{1,100}$`)
)

func matching(form, pattern string) kind[string] {
	re := regexp.MustCompile(pattern)
	return kind[string]{form, func(s string) (string, error) {
		if !re.MatchString(s) {
			return "", errForm
		}
		return s, nil
	}}
}

// sessionName is what PHP takes as session.name. Another name would never be found in a request.
var sessionName = kind[string]{"a name that PHP takes as session.name", func(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("must not be empty")
	case numeric.MatchString(s):
		return "", errors.New("must not be a number, which PHP refuses as session.name")
	case strings.ContainsAny(s, "=,;.[ \t\r\n\013\014\x00"):
		return "", formHint("PHP 8.4 accepts no name with one of = , ; . [ or white space in it; older versions lose sessions under most of them.")
	}
	return s, nil
}}

// numeric is what PHP takes for a number, so far as it has no "." and no space.
var numeric = regexp.MustCompile(`^[+-]?[0-9]+([eE][+-]?[0-9]+)?$`)

// pathPattern is checked here and matched by the gate.
var pathPattern = kind[string]{
	`a path such as "/cart", "/api/*" (one segment more) or "/api/**" (everything below)`,
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
			return "", formHint(`A "*" stands only at the end, for whole segments.`)
		case strings.Contains(fixed, "?"):
			return "", formHint("A pattern sees the path, not the query string.")
		}
		return s, nil
	},
}

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

var hostName = kind[string]{`a host name such as "shop.example.org", without a port`, func(s string) (string, error) {
	if !isHost(s) {
		return "", errForm
	}
	return strings.ToLower(s), nil
}}

// savePathFolder reads session.save_path of PHP's handler files: "/path", "depth;/path" or
// "depth;mode;/path".
func savePathFolder(s string) (folder string, depth int, err error) {
	parts := strings.Split(s, ";")
	folder = parts[len(parts)-1]
	ok := len(parts) <= 3 && strings.HasPrefix(folder, "/") && !hasControl(folder)
	if len(parts) > 1 {
		// Each level of folders is named by a character of the id; the shortest id has 22.
		depth, err = strconv.Atoi(parts[0])
		ok = ok && err == nil && 0 <= depth && depth < 22
	}
	if !ok {
		return "", 0, errForm
	}
	return folder, depth, nil
}

// savePathServers reads session.save_path of PHP's handler memcached: "host:port" or the path of
// a socket, several with commas between.
func savePathServers(s string) (servers []Address, err error) {
	for server := range strings.SplitSeq(s, ",") {
		server = strings.TrimSpace(server)
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
