package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// row is one line of the tables: the gate's figure and the one that it is compared with.
type row struct {
	what   string
	gate   string  // with the gate
	other  string  // what it is compared with
	ratios series  // of the two, by round; none if they have no meaning
	value  float64 // with the gate, where the target has a unit
	target target
}

// target is what a row has to reach.
type target struct {
	sign  string  // ≤ or ≥; empty: the row is there for information
	limit float64 // of the median ratio; of the row's value if there is a unit
	unit  string
}

var noTarget target

func atMost(ratio float64) target { return target{sign: "≤", limit: ratio} }

func atLeast(ratio float64) target { return target{sign: "≥", limit: ratio} }

func atMostOf(limit float64, unit string) target { return target{"≤", limit, unit} }

func (t target) String() string {
	switch {
	case t.sign == "":
		return "–"
	case t.unit == "":
		return fmt.Sprintf("%s %.4g ×", t.sign, t.limit)
	}
	return fmt.Sprintf("%s %.6g %s", t.sign, t.limit, t.unit)
}

// reached returns yes or no, – without a target.
func (r row) reached() string {
	got := r.value
	if r.target.unit == "" {
		got = r.ratios.median()
	}
	switch {
	case r.target.sign == "":
		return "–"
	case r.target.sign == "≤" && got <= r.target.limit, r.target.sign == "≥" && got >= r.target.limit:
		return "yes"
	}
	return "no"
}

// ratio is the median of the rounds' ratios.
func (r row) ratio() string {
	if len(r.ratios) == 0 {
		return "–"
	}
	return number(r.ratios.median()) + " ×"
}

// spread is the range that the middle half of the rounds' ratios lie in.
func (r row) spread() string {
	if len(r.ratios) < 2 {
		return "–"
	}
	return number(r.ratios.percentile(25)) + "–" + number(r.ratios.percentile(75))
}

func (r row) rounds() string {
	if len(r.ratios) == 0 {
		return "–"
	}
	return fmt.Sprint(len(r.ratios))
}

// number shows as many digits as mean something.
func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// table is the result of one measure.
type table []row

// String returns the table in Markdown, its columns lined up for a terminal.
func (t table) String() string {
	lines := [][]string{
		{"", "with the gate", "compared with", "ratio", "middle half", "rounds", "target", "reached"},
		nil,
	}
	for _, r := range t {
		lines = append(lines, []string{
			r.what, r.gate, r.other, r.ratio(), r.spread(), r.rounds(), r.target.String(), r.reached(),
		})
	}
	return align(lines)
}

// align pads the cells of a Markdown table, whose second line it fills in.
func align(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	for _, w := range widths {
		lines[1] = append(lines[1], strings.Repeat("-", w))
	}
	var b strings.Builder
	for _, cells := range lines {
		for i, cell := range cells {
			pad := widths[i] - utf8.RuneCountInString(cell)
			b.WriteString("| " + cell + strings.Repeat(" ", pad+1))
		}
		b.WriteString("|\n")
	}
	return b.String()
}
