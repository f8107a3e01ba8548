package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// documentFile is what a whole run writes, in the repository.
const documentFile = "docs/BENCHMARKS.md"

// row is one line of the tables: what the gate did beside what it is compared with.
type row struct {
	what   string
	gate   string // with the gate
	other  string // what it is compared with
	ratios series // of the two, by rounds; none where one number says it all
	value  float64
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
	return fmt.Sprintf("%s %.4g %s", t.sign, t.limit, t.unit)
}

// reached says yes or no, – where there was nothing to reach.
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

// spread is the range of the rounds' ratios.
func (r row) spread() string {
	if len(r.ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s–%s (%d)", number(slices.Min(r.ratios)), number(slices.Max(r.ratios)), len(r.ratios))
}

// number shows as many digits as mean something.
func number(f float64) string {
	if f >= 100 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// report is what a run has found.
type report struct {
	began  time.Time
	took   time.Duration
	tables []table
}

func newReport() *report { return &report{began: time.Now()} }

func (r *report) add(name string, rows []row) {
	r.tables = append(r.tables, table{name, rows})
}

// table is the result of one measure.
type table struct {
	name string
	rows []row
}

// String returns the table in Markdown, its columns lined up for a terminal.
func (t table) String() string {
	lines := [][]string{
		{"measure: " + t.name, "with the gate", "compared with", "ratio", "spread (rounds)", "target", "reached"},
		nil,
	}
	for _, r := range t.rows {
		lines = append(lines, []string{r.what, r.gate, r.other, r.ratio(), r.spread(), r.target.String(), r.reached()})
	}
	return align(lines)
}

// align pads the cells of a Markdown table, whose second line it fills in.
func align(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
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

func (r *report) write(file string) error {
	var b strings.Builder
	for _, t := range r.tables {
		b.WriteString(t.String() + "\n")
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
