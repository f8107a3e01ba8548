package gate

import (
	"net/url"
	"path"
	"strings"
)

// matchPath says whether a cleaned path matches a pattern: /a only itself, /a/* what is one segment below /a,
// /a/** all that is below it.
func matchPath(pattern, p string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "**"); ok {
		return strings.HasPrefix(p, prefix)
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		rest, ok := strings.CutPrefix(p, prefix)
		return ok && rest != "" && !strings.Contains(rest, "/")
	}
	return pattern == p
}

// requestPath is the path of a request's target as the web server understood it: without query and host,
// decoded, and without dot segments. A visitor must not be able to choose a route by writing his path in
// another way than the web server reads it. One that cannot be read is empty, and matches nothing.
func requestPath(target string) string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	if !strings.HasPrefix(target, "/") {
		_, rest, ok := strings.Cut(target, "://")
		if !ok {
			return ""
		}
		i := strings.IndexByte(rest, '/')
		if i < 0 {
			return "/"
		}
		target = rest[i:]
	}
	decoded, err := url.PathUnescape(target)
	if err != nil {
		return ""
	}
	return cleanPath(decoded)
}

// cleanPath takes dot segments and doubled slashes out of p, and leaves a slash at its end.
func cleanPath(p string) string {
	if p == "" || p[0] != '/' {
		return ""
	}
	cleaned := path.Clean(p)
	if strings.HasSuffix(p, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}

// hostName is a Host header without its port, in lower case.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(host)
}
