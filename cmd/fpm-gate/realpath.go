package main

import (
	"os"
	"path/filepath"
	"strings"
)

// sameAddress reports whether two addresses, as a config has them, are one, in the system below root. Paths of unix
// sockets may differ by links: Debian's /run/php/php-fpm.sock leads to that of one version, and /var/run to /run.
func sameAddress(root, a, b string) bool {
	pathA, unixA := strings.CutPrefix(a, "unix:")
	pathB, unixB := strings.CutPrefix(b, "unix:")
	if !unixA || !unixB {
		return a == b
	}
	return realPath(root, pathA) == realPath(root, pathB)
}

// realPath returns the path, in the system below root, to which the links in path lead. What is not there is no link.
func realPath(root, path string) string {
	done, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		next := filepath.Join(done, rest[0])
		rest = rest[1:]
		to, err := os.Readlink(filepath.Join(root, next))
		if err != nil || links == maxLinks {
			done = next
			continue
		}
		links++
		if filepath.IsAbs(to) {
			done = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return done
}
