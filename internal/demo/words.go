package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// measured returns a row of the table. figure returns a side's figure as text, and as a number to compare; smaller is
// better.
func measured[T any](p *Pair[T], label string, figure func(T) (string, float64)) row {
	without, a := figure(p.Without)
	with, b := figure(p.With)
	return row{label, without, with, less(a, b)}
}

// String returns the duration in milliseconds, with a decimal if it is short.
func (m Millis) String() string { return m.number() + " ms" }

func (m Millis) number() string {
	if m < 9.95 { // else it is 10.0
		return fmt.Sprintf("%.1f", float64(m))
	}
	return thousands(fmt.Sprintf("%.0f", float64(m)))
}

// seconds returns the duration in seconds.
func (m Millis) seconds() string { return fmt.Sprintf("%.1f s", float64(m)/1000) }

// whole returns the duration in whole seconds.
func (m Millis) whole() string { return fmt.Sprintf("%.0f s", float64(m)/1000) }

// short returns the duration in a suitable unit.
func (m Millis) short() string {
	if m < 1000 {
		return m.String()
	}
	return m.seconds()
}

// change is a figure before and during something; the latter is compared.
func change(before, during Millis) (string, float64) {
	return before.number() + " → " + during.String(), float64(during)
}

// workersLabel is the label of the rows with a Held.
var workersLabel = fmt.Sprintf("workers held, of %d", workers)

func (h Held) row() (string, float64) {
	return fmt.Sprintf("median %d, most %d", h.Median, h.Most), float64(h.Median)
}

// workersHeld and workersAre put a number of workers into words.
func workersHeld(n int) string {
	switch n {
	case 1:
		return "1 worker"
	case workers:
		return fmt.Sprintf("all %d workers", workers)
	}
	return fmt.Sprintf("%d workers", n)
}

func workersAre(n int) string {
	if n == 1 {
		return "1 worker is"
	}
	return workersHeld(n) + " are"
}

// statuses lists the number of answers by status.
func statuses(counts map[string]int) string {
	var all []string
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d × %s", counts[status], status))
	}
	return strings.Join(all, ", ")
}

// thousands puts commas into the digits of a number.
func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
