package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// webDiff shows the lines of web servers that are to change, as diff -u does. init changes none of these files: an
// operator applies the diff with patch, after a look.
func webDiff(root string, passes []pass, pools []*pool) string {
	changes := map[string]map[int]string{} // by file and line
	for _, pass := range passes {
		i := slices.IndexFunc(pools, func(p *pool) bool { return sameAddress(root, p.address(), pass.address) })
		text, err := os.ReadFile(pass.file)
		if i < 0 || err != nil || pass.line > strings.Count(string(text), "\n")+1 {
			continue
		}
		lines := strings.Split(string(text), "\n")
		old := lines[pass.line-1]
		if changes[pass.file] == nil {
			changes[pass.file] = map[int]string{}
		}
		changes[pass.file][pass.line] = pointAt(old, pools[i], pass.address)
	}
	var b strings.Builder
	for _, file := range slices.Sorted(maps.Keys(changes)) {
		writeDiff(&b, file, changes[file])
	}
	return b.String()
}

// pointAt returns a line with the gate's socket in the place of the pool's address, or of written, as the line has it.
// Apache takes a socket as unix:/path|fcgi://host, in which the host is only a name.
func pointAt(line string, p *pool, written string) string {
	listen := p.settings["listen"].value
	socket := "unix:" + p.socket()
	for _, fcgi := range []string{"fcgi://" + listen, "fcgi://" + p.address()} { // of Apache
		if strings.Contains(line, fcgi) {
			return strings.Replace(line, fcgi, socket+"|fcgi://localhost", 1)
		}
	}
	port := listen[strings.LastIndexByte(listen, ':')+1:]
	for _, address := range []string{written, p.address(), listen, "localhost:" + port} {
		if strings.Contains(line, address) {
			return strings.Replace(line, address, socket, 1)
		}
	}
	return line
}

// diffContext is how many lines stand around a change.
const diffContext = 3

// writeDiff writes a unified diff of a file in which some lines are replaced. Each change replaces one line by one, so
// both sides of a hunk have the same numbers. Changes whose contexts touch share a hunk, as hunks must not overlap.
func writeDiff(b *strings.Builder, file string, changed map[int]string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // patch changes no link, as Debian's sites-enabled are
	}
	fmt.Fprintf(b, "--- %s\n+++ %s\n", file, file)
	for from := 1; from <= len(lines); from++ {
		if _, is := changed[from]; !is {
			continue
		}
		begin, end := max(1, from-diffContext), from
		for next := from; next <= min(len(lines), end+2*diffContext); next++ {
			if _, is := changed[next]; is {
				end = next
			}
		}
		last := min(len(lines), end+diffContext)
		fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", begin, last-begin+1, begin, last-begin+1)
		for n := begin; n <= last; n++ {
			if now, is := changed[n]; is {
				fmt.Fprintf(b, "-%s\n+%s\n", lines[n-1], now)
				continue
			}
			fmt.Fprintf(b, " %s\n", lines[n-1])
		}
		from = last
	}
}
