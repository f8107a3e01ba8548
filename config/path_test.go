package config

import (
	"fmt"
	"testing"
)

// TestPathsThatNoRequestHasAreRefused wants an error for a route that would never apply, which no one would notice.
func TestPathsThatNoRequestHasAreRefused(t *testing.T) {
	for path, fits := range map[string]bool{
		"/": true, "/**": true, "/*": true, "/a": true, "/a/": true, "/a.b/..c/d.": true, "/index.php/api/**": true,
		"/für alle": true, "/100%": true, "/a%zz": true, "/.well-known/*": true,
		"//": false, "/a//b": false, "/a//": false, "/a//*": false, "/a//**": false,
		"/.": false, "/..": false, "/a/./b": false, "/a/../b": false, "/a/..": false, "/a/../*": false, "/./**": false,
		`/a\b`: false, "/a#b": false, "/a%2fb": false, "/f%C3%BCr": false, "/a%20b/**": false,
	} {
		src := fmt.Sprintf("gate \"a\" {\n  listen = \"unix:/run/a\"\n  upstream { address = \"unix:/run/b\" }\n"+
			"  route \"r\" { path = [%s] }\n}\n", Quote(path))
		if _, err := Parse([]byte(src), "test.hcl"); (err == nil) != fits {
			t.Errorf("%s: got %v, want that it fits: %t", path, err, fits)
		}
	}
}
