package config

import (
	"fmt"
	"slices"
	"strings"
)

// hint guesses what an unknown key or block was meant to be, in a file of that format.
func (b block) hint(format block, name string) string {
	// From the most certain guess to the least.
	if slices.Contains(b.blockNames(), name) {
		return fmt.Sprintf("%s is a block: write %[1]s { … }, without \"=\".", name)
	}
	if slices.Contains(b.keyNames(), name) {
		return fmt.Sprintf("%s is a key: write %[1]s = …", name)
	}
	if blocks := blocksWith(format, "the config", name); len(blocks) > 0 {
		return fmt.Sprintf("%s belongs in %s.", name, alternatives(blocks))
	}
	return didYouMean(name, append(b.keyNames(), b.blockNames()...))
}

// didYouMean returns a sentence with the candidate that differs least from s, by two letters at most, or "" if none is
// that close. Of a short s at least one letter must be right.
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

// distance returns the Levenshtein distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of the usual table, for the letters of a so far
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

// alternatives joins names as in "a, b or c".
func alternatives(names []string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
