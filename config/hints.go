package config

import (
	"fmt"
	"slices"
	"strings"
)

// hint guesses what a stranger in the block was meant to be.
func (b block) hint(name string) string {
	if slices.Contains(b.blockNames(), name) {
		return fmt.Sprintf("%s is a block: %[1]s { … }, without \"=\".", name)
	}
	if slices.Contains(b.keyNames(), name) {
		return fmt.Sprintf("%s is a key: %[1]s = …", name)
	}
	if homes := homes(newFile().block(), "the config", name); len(homes) > 0 {
		return fmt.Sprintf("%s belongs in %s.", name, alternatives(homes))
	}
	return didYouMean(name, append(b.keyNames(), b.blockNames()...))
}

// homes returns the blocks in which a key or a block of that name stands.
func homes(b block, title, name string) (titles []string) {
	if slices.Contains(append(b.keyNames(), b.blockNames()...), name) {
		titles = append(titles, title)
	}
	for _, c := range b.blocks {
		titles = append(titles, homes(c.open(""), c.name, name)...)
	}
	return titles
}

// didYouMean returns a sentence with the candidate that is hardly different from s, or "".
func didYouMean(s string, candidates []string) string {
	best, least := "", min(3, len(s))
	for _, c := range candidates {
		if n := distance(strings.ToLower(s), c); n < least {
			best, least = c, n
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("Did you mean %q?", best)
}

// distance counts the letters to change, insert or take away on the way from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// alternatives joins names to `a, b or c`.
func alternatives(names []string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
