package gate

import (
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

func TestRequestPathIsReadAsTheWebServerReadsIt(t *testing.T) {
	for target, want := range map[string]string{
		"/a/b":                      "/a/b",
		"/a/b?x=/c":                 "/a/b",
		"/a/b#x":                    "/a/b",
		"/a/b?":                     "/a/b",
		"/a//b":                     "/a/b",
		"//a/b":                     "/a/b",
		"/a/./b":                    "/a/b",
		"/a/../b":                   "/b",
		"/a/b/..":                   "/a",
		"/a/b/../":                  "/a/",
		"/../../a":                  "/a",
		"/a/%2e%2e/b":               "/b",
		"/a/%2E%2e%2Fb":             "/b",
		"/a%2fb":                    "/a/b",
		"/%61/b":                    "/a/b",
		"/a/b/":                     "/a/b/",
		"/a/b//":                    "/a/b/",
		"/a%3fb":                    "/a?b",
		"/a%23b":                    "/a#b",
		"/a+b":                      "/a+b",
		"/a%20b":                    "/a b",
		"/%2561":                    "/%61",
		"/a;b=c":                    "/a;b=c",
		"/":                         "/",
		"/?x":                       "/",
		"http://example.com/a/b?x":  "/a/b",
		"http://example.com":        "/",
		"http://example.com?x=/a":   "/",
		"https://example.com/../a/": "/a/",
		"/a%":                       "",
		"/a%zz":                     "",
		"a/b":                       "",
		"*":                         "",
		"":                          "",
	} {
		if got := requestPath(target); got != want {
			t.Errorf("%q: got %q, want %q", target, got, want)
		}
	}
}

func TestHostHasNeitherPortNorCapitals(t *testing.T) {
	for host, want := range map[string]string{
		"example.com": "example.com", "Example.COM:8080": "example.com", "": "", ":80": "",
		"[::1]": "[::1]", "[::1]:80": "[::1]", "[FE80::1]:443": "[fe80::1]", "127.0.0.1:9000": "127.0.0.1",
	} {
		if got := hostName(host); got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func FuzzRequestPath(f *testing.F) {
	for _, target := range []string{"/a/b?c", "/a/%2e%2e/b", "http://host/a", "//", "/%00", "/a/..%2f"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got := requestPath(target)
		if got == "" {
			return
		}
		if got[0] != '/' || strings.Contains(got, "//") {
			t.Errorf("%q: got %q, which is no clean path", target, got)
		}
		for segment := range strings.SplitSeq(got, "/") {
			if segment == "." || segment == ".." {
				t.Errorf("%q: got %q, which has dot segments", target, got)
			}
		}
		if again := cleanPath(got); again != got {
			t.Errorf("%q: got %q, which is %q when it is cleaned again", target, got, again)
		}
	})
}

func TestRoutesMatchByMethodHostAndPath(t *testing.T) {
	paths := []string{"/index.php", "/api/items/7"}
	for _, c := range []struct {
		name  string
		route Route
		want  bool
	}{
		{"nothing asked for", Route{}, true},
		{"the method", Route{Methods: []string{"HEAD", "GET"}}, true},
		{"another method", Route{Methods: []string{"POST"}}, false},
		{"the method in lower case, which is another", Route{Methods: []string{"get"}}, false},
		{"the host", Route{Hosts: []string{"example.com"}}, true},
		{"another host", Route{Hosts: []string{"example.org"}}, false},
		{"the script", Route{Paths: []string{"/index.php"}}, true},
		{"the target", Route{Paths: []string{"/none", "/api/**"}}, true},
		{"neither", Route{Paths: []string{"/api/*"}}, false},
		{"all of them", Route{Paths: []string{"/api/**"}, Methods: []string{"GET"}, Hosts: []string{"example.com"}}, true},
		{"all but one of them", Route{Paths: []string{"/api/**"}, Methods: []string{"GET"}, Hosts: []string{"example.org"}}, false},
	} {
		if got := c.route.matches("GET", "example.com", paths...); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
	pattern := Route{Paths: []string{"/**"}}
	if pattern.matches("GET", "", "", "") {
		t.Error("paths that cannot be read match a pattern")
	}
}
