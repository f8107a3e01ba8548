package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
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

func matching(form, pattern string) kind[string] {
	re := regexp.MustCompile(pattern)
	return kind[string]{form, func(s string) (string, error) {
		if !re.MatchString(s) {
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
