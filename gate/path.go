package gate

import "strings"

// matchPath reports whether a plain path matches a pattern: /a only itself, /a/* what is one segment below /a,
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

// asked is what routes compare of a request. A name that is not plain is empty, and matches no pattern.
type asked struct {
	method string
	host   string
	script string // SCRIPT_NAME: what the web server has PHP run
	target string // the path of REQUEST_URI, decoded: what a front controller looks at
	// unclear: the visitor has written the path in a way that web servers and applications read differently.
	unclear bool
}

// asked returns what routes compare. All that a visitor can do to the spelling of a path shows in REQUEST_URI, which
// web servers pass on as it came, so that says whether it is clear; without one SCRIPT_NAME does. lighttpd and HAProxy
// leave it to PHP to find the script in /cart.php/x.php, and PHP may find either.
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

// targetPath returns the path of a request's target, without its query and decoded. It returns false if the path is not
// plain, or is escaped where no browser would do so: an application that compares it as it came, one that decodes it
// and one that decodes it twice must all see what the gate sees.
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

// escapable reports whether it makes no difference to a path that c is escaped in it.
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

// plainPath returns p, and true, if it can be read in one way only: it begins with a slash, and has no dot segments,
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

// hostName returns a Host header without its port and the dot of an absolute name, in lower case.
func hostName(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
