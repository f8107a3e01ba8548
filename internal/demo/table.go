package demo

import (
	"strings"
	"unicode/utf8"
)

// section is one part of the story in the table.
type section struct {
	title  string
	blocks []block
}

// block is what was measured under one set of conditions, and what it means.
type block struct {
	conditions string // "": those of the title
	skipped    string // why nothing was measured
	rows       []row
	words      string
}

// row is one figure in both columns.
type row struct {
	label         string
	without, with string
	better        better
}

// better says which column of a row is the better one.
type better int

const (
	neither better = iota
	withoutBetter
	withBetter
)

// less compares two figures of which the smaller one is better. What is nearly the same is the same.
func less(without, with float64) better {
	const clearly = 1.5
	switch {
	case without > clearly*with:
		return withBetter
	case with > clearly*without:
		return withoutBetter
	}
	return neither
}

// The table's columns. Nothing in it is wider than all of them.
const (
	labelWidth  = 36
	columnWidth = 21
	tableWidth  = labelWidth + 2*columnWidth
	indent      = "   "
)

// tableOf renders sections, with a blank line behind each.
func tableOf(sections []section, s style) string {
	var b strings.Builder
	for _, sec := range sections {
		b.WriteString(s.bold(sec.title) + "\n")
		for i := range sec.blocks {
			sec.blocks[i].render(&b, s)
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (bl *block) render(b *strings.Builder, s style) {
	if bl.skipped != "" {
		paragraph(b, indent, bl.conditions+": left out, because "+bl.skipped+".")
		return
	}
	heads := padLeft("without fpm-gate", columnWidth) + padLeft("with fpm-gate", columnWidth)
	b.WriteString(pad(indent+bl.conditions, labelWidth) + s.dim(heads) + "\n")
	for _, r := range bl.rows {
		b.WriteString(r.render(s))
	}
	paragraph(b, indent+"▸ ", bl.words)
}

// paragraph writes text behind a mark, and further lines below the text.
func paragraph(b *strings.Builder, mark, text string) {
	width := utf8.RuneCountInString(mark)
	for _, l := range wrap(text, tableWidth-width) {
		b.WriteString(mark + l + "\n")
		mark = blanks(width)
	}
}

func (r *row) render(s style) string {
	without, with := padLeft(r.without, columnWidth), padLeft(r.with, columnWidth)
	switch r.better {
	case withBetter:
		without, with = s.bad(without), s.good(with)
	case withoutBetter:
		without, with = s.good(without), s.bad(with)
	}
	return pad(indent+r.label, labelWidth) + without + with + "\n"
}

func pad(text string, width int) string { return text + blanks(width-utf8.RuneCountInString(text)) }

func padLeft(text string, width int) string {
	return blanks(width-utf8.RuneCountInString(text)) + text
}

func blanks(n int) string { return strings.Repeat(" ", max(n, 0)) }

// wrap breaks text into lines of at most width characters, between words.
func wrap(text string, width int) []string {
	var lines []string
	current := ""
	for _, word := range strings.Fields(text) {
		switch {
		case current == "":
			current = word
		case utf8.RuneCountInString(current+" "+word) <= width:
			current += " " + word
		default:
			lines = append(lines, current)
			current = word
		}
	}
	if current != "" {
		lines = append(lines, current)
	}
	return lines
}
