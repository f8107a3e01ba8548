package gate

import "strings"

// matchPath reports whether a plain path matches a pattern: /a matches only itself, /a/* one segment below /a, and
// /a/** everything below /a.
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

// asked is the part of a request that routes compare. A path that is not plain is empty, and matches no pattern.
type asked struct {
	method string
	host   string
	script string // SCRIPT_NAME: the script that the web server makes PHP run
	target string // the decoded path of REQUEST_URI, which a front controller routes by
	// unclear is set if web servers and applications may read the path as the visitor wrote it in different ways.
	unclear bool
}

// asked returns what routes compare. Every unusual spelling of a path shows in REQUEST_URI, which web servers pass on
// unchanged, so REQUEST_URI decides whether the path is clear; without one SCRIPT_NAME does. lighttpd and HAProxy let
// PHP find the script in /cart.php/x.php, and PHP may find either.
func (h *head) asked() asked {
	a := asked{method: string(h.method), host: hostName(string(h.host))}
	script, target := string(h.script), string(h.target)
	var scriptPlain, targetPlain bool
	a.script, scriptPlain = plainPath(script)
	a.target, targetPlain = targetPath(target)
	switch {
	case strings.Contains(script, ".php/"):
		a.unclear = true
	case target != "":
		a.unclear = !targetPlain
	case script != "":
		a.unclear = !scriptPlain
	}
	return a
}

// targetPath returns the decoded path of a request's target, without its query. It returns false if the path is not
// plain, or has escapes that no browser would send: applications that do not decode the path, decode it once or decode
// it twice must all see what the gate sees.
func targetPath(target string) (p string, plain bool) {
	target, _, _ = strings.Cut(target, "?")
	if !strings.Contains(target, "%") {
		return plainPath(target)
	}
	decoded := make([]byte, 0, len(target))
	for i := 0; i < len(target); i++ {
		c := target[i]
		if c == '%' {
			if i+2 >= len(target) {
				return "", false
			}
			high, ok1 := hexDigit(target[i+1])
			low, ok2 := hexDigit(target[i+2])
			if c = high<<4 | low; !ok1 || !ok2 || !escapable(c) {
				return "", false
			}
			i += 2
		}
		decoded = append(decoded, c)
	}
	return plainPath(string(decoded))
}

// escapable reports whether escaping c in a path cannot change how the path is read.
func escapable(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return false
	}
	return !strings.ContainsRune(`./\%?#`, rune(c))
}

func hexDigit(c byte) (value byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// plainPath returns p and true if p can be read in one way only: it starts with a slash, and has no dot segments,
// doubled slashes, backslashes, fragments or control characters.
func plainPath(p string) (string, bool) {
	if p == "" || p[0] != '/' || strings.Contains(p, "//") {
		return "", false
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "." || segment == ".." {
			return "", false
		}
	}
	for i := range len(p) {
		if c := p[i]; c < ' ' || c == 0x7f || c == '\\' || c == '#' {
			return "", false
		}
	}
	return p, true
}

// hostName returns a Host header in lower case, without its port and the final dot of an absolute name.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
