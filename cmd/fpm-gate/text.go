package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/fpm-gate/fpm-gate/admin"
)

// describe returns a line about the request that holds a lock.
func describe(r admin.Request) string {
	return printable(r.Method + " " + r.Path + " (" + r.Script + ")")
}

// age formats milliseconds for people: precise while short, in whole seconds from a minute on.
func age(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return d.String()
	case d < time.Minute:
		return d.Truncate(100 * time.Millisecond).String()
	}
	return d.Truncate(time.Second).String()
}

// printable replaces control characters. A visitor chooses paths; they must not control an operator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
