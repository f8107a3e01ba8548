package gate

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestPatternsMatchWholePaths(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		matches  []string
		mismatch []string
	}{
		{"/a", []string{"/a"}, []string{"/a/", "/a/b", "/ab", "/", "", "a"}},
		{"/a/", []string{"/a/"}, []string{"/a", "/a/b"}},
		{"/a/*", []string{"/a/b", "/a/b.php"}, []string{"/a", "/a/", "/a/b/", "/a/b/c", "/b/a"}},
		{"/a/**", []string{"/a/", "/a/b", "/a/b/", "/a/b/c/d"}, []string{"/a", "/ab/c", "/b/a/c"}},
		{"/a*", []string{"/ab", "/a.php"}, []string{"/a", "/a/b", "/b"}},
		{"/**", []string{"/", "/a", "/a/b"}, []string{""}},
		{"/*", []string{"/a"}, []string{"/", "/a/b"}},
	} {
		for _, path := range c.matches {
			if !matchPath(c.pattern, path) {
				t.Errorf("%s does not match %q", c.pattern, path)
			}
		}
		for _, path := range c.mismatch {
			if matchPath(c.pattern, path) {
				t.Errorf("%s matches %q", c.pattern, path)
			}
		}
	}
}

func TestPathIsPlainOnlyIfAllReadersAgree(t *testing.T) {
	for target, want := range map[string]string{
		"/":              "/",
		"/?x":            "/",
		"/a/b":           "/a/b",
		"/a/b?x=/c":      "/a/b",
		"/a/b?":          "/a/b",
		"/a?/../b//c":    "/a",
		"/a/b/":          "/a/b/",
		"/a+b":           "/a+b",
		"/a%20b":         "/a b",
		"/%C3%A4/%c3%9F": "/ä/ß",
		"/ä":             "/ä",
		"/a%2Bb%7e%2d":   "/a+b~-",
		"/a;b=c":         "/a;b=c",
		"/.a/..b/c./d..": "/.a/..b/c./d..",
		"/.../a":         "/.../a",
	} {
		if got, ok := targetPath(target); got != want || !ok {
			t.Errorf("%q: got %q, %t, want %q", target, got, ok, want)
		}
	}
	for why, targets := range map[string][]string{
		"no slash at its begin": {"", "a/b", "*", "?x", "http://example.com/a", "http://example.com", "%2fa"},
		"doubled slashes":       {"//", "//a/b", "/a//b", "/a/b//", "/a//?x"},
		"dot segments":          {"/.", "/..", "/./", "/../a", "/a/./b", "/a/../b", "/a/b/..", "/a/b/.", "/a/b/../", "/a/..?x", "/.a/../b", "/a./../b"},
		"encoded dots":          {"/a/%2e%2e/b", "/a/.%2E/b", "/%2e", "/a%2ephp", "/a/%2e"},
		"encoded slashes":       {"/a%2fb", "/a%2Fb", "/a/..%2f", "/a%2f"},
		"needless escapes":      {"/%61/b", "/%41", "/a%30"},
		"escapes in escapes":    {"/%2561", "/%25", "/a%252e"},
		"escapes that are none": {"/a%", "/a%2", "/a%zz", "/a%2z", "/%%20"},
		"what ends a path":      {"/a#b", "/a%23b", "/a%3fb", "/#", "/a#/../b?c"},
		"backslashes":           {`/a\b`, `/a\..\b`, "/a%5cb", `\a`},
		"control characters":    {"/a\x00b", "/a%00b", "/a%0ab", "/a\tb", "/a%7f", "/%1f"},
	} {
		for _, target := range targets {
			if got, ok := targetPath(target); got != "" || ok {
				t.Errorf("%s: %q: got %q, %t", why, target, got, ok)
			}
		}
	}
}

func TestHostHasNeitherPortNorCapitals(t *testing.T) {
	for host, want := range map[string]string{
		"example.com": "example.com", "Example.COM:8080": "example.com", "": "", ":80": "",
		"example.com.": "example.com", "Example.com.:80": "example.com", "example.com..": "example.com.",
		"[::1]": "[::1]", "[::1]:80": "[::1]", "[FE80::1]:443": "[fe80::1]", "127.0.0.1:9000": "127.0.0.1",
	} {
		if got := hostName(host); got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

// FuzzTargetPath holds that a path which is taken for plain stays the same when it is decoded once, or twice, and when
// its dot segments are resolved.
func FuzzTargetPath(f *testing.F) {
	for _, target := range []string{"/a/b?c", "/a/%2e%2e/b", "http://host/a", "//", "/%00", "/a/..%2f", "/%c3%a4", "/a#b"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got, ok := targetPath(target)
		if !ok {
			return
		}
		raw, _, _ := strings.Cut(target, "?")
		once, err := url.PathUnescape(raw)
		if err != nil || once != got {
			t.Errorf("%q: got %q, and %q with error %v when it is decoded by others", target, got, once, err)
		}
		if twice, err := url.PathUnescape(once); err != nil || twice != once {
			t.Errorf("%q: got %q, and %q with error %v when it is decoded twice", target, got, twice, err)
		}
		if cleaned := path.Clean(got); cleaned != got && cleaned+"/" != got {
			t.Errorf("%q: got %q, which is %q when it is cleaned", target, got, cleaned)
		}
		if strings.Count(raw, "/") != strings.Count(got, "/") {
			t.Errorf("%q: got %q, whose segments are others", target, got)
		}
	})
}

func TestRoutesMatchByMethodHostAndPath(t *testing.T) {
	request := asked{method: "GET", host: "example.com", script: "/index.php", target: "/api/items/7"}
	for _, c := range []struct {
		name  string
		route Route
		want  match
	}{
		{"nothing is compared", Route{}, matches},
		{"the method", Route{Methods: []string{"HEAD", "GET"}}, matches},
		{"another method", Route{Methods: []string{"POST"}}, differs},
		{"the method in lower case, which is another", Route{Methods: []string{"get"}}, differs},
		{"the host", Route{Hosts: []string{"example.com"}}, matches},
		{"another host", Route{Hosts: []string{"example.org"}}, differs},
		{"the script", Route{Paths: []string{"/index.php"}}, matches},
		{"the target", Route{Paths: []string{"/none", "/api/**"}}, matches},
		{"neither", Route{Paths: []string{"/api/*"}}, differs},
		{"all of them", Route{Paths: []string{"/api/**"}, Methods: []string{"GET"}, Hosts: []string{"example.com"}}, matches},
		{"all but one of them", Route{Paths: []string{"/api/**"}, Methods: []string{"GET"}, Hosts: []string{"example.org"}}, differs},
	} {
		if got := c.route.match(&request); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUnclearPathEndsTheSearchForARoute(t *testing.T) {
	for _, c := range []struct {
		script, target string
		want           match // of /api/** and /index.php
	}{
		{"/index.php", "/a/../api/x", matches}, // by the script
		{"/front.php", "/a/../api/x", unclear},
		{"/front.php", "/%61pi/x", unclear},
		{"/front.php", "//api/x", unclear},
		{"/front.php", "http://example.com/api/x", unclear},
		{"/front.php", "/other", differs},
		{"/x/../index.php", "/x/../index.php", unclear},
		{"/x/../index.php", "/other", differs}, // the web server made that name, not the visitor
		{"/x/../index.php", "", unclear},
		{"/index.php/front.php", "/index.php/front.php", unclear},
		{"/api/index.php/front.php", "/api/index.php/front.php", matches},
		{"/front.php", "", differs},
		{"", "", differs},
	} {
		h := head{script: []byte(c.script), target: []byte(c.target), host: []byte("example.com"), method: []byte("GET")}
		request := h.asked()
		route := Route{Paths: []string{"/api/**", "/index.php"}}
		if got := route.match(&request); got != c.want {
			t.Errorf("%q for %q: got %v, want %v", c.script, c.target, got, c.want)
		}
		route.Methods = []string{"POST"}
		if got := route.match(&request); got != differs {
			t.Errorf("%q for %q, of another method: got %v", c.script, c.target, got)
		}
		if got := (&Route{Hosts: []string{"example.com"}}).match(&request); got != matches {
			t.Errorf("%q for %q, of a route without paths: got %v", c.script, c.target, got)
		}
	}
}
