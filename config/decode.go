package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// decoder fills a config by the tables of its blocks. It does not stop at an error: it records the error, keeps the
// default and continues, so that a report shows everything at once.
type decoder struct {
	filename string
	file     *hcl.File
	format   block   // what a file may have; its tables fill no config
	masked   *masked // the parts of the file that may be shown
	scope    *hcl.EvalContext
	broken   bool // the syntax is wrong, so what seems missing may only be unreadable
	diags    hcl.Diagnostics
}

// newDecoder returns a decoder of a file of that format, for messages. It calls opened with each file that a value is
// read from.
func newDecoder(filename string, format block, opened func(path string)) *decoder {
	return &decoder{
		filename: filename,
		format:   format,
		scope:    &hcl.EvalContext{Functions: functions(opened)},
	}
}

// The parser recurses for every bracket, so a nonsense file could exhaust the stack. These limits are far above any
// real config.
const (
	maxFileSize = 128 << 10
	maxNesting  = 100
)

// parse returns as much of the file's body as can be parsed, or nil.
func (d *decoder) parse(src []byte) *hclsyntax.Body {
	d.masked = &masked{} // shows nothing, if the file is too long
	switch {
	case len(src) > maxFileSize:
		d.fail(d.start(), "",
			"a config must be at most %s; this file has %d bytes", sizeText(maxFileSize), len(src))
		return nil
	case nesting(src) > maxNesting:
		d.fail(d.start(), "",
			"brackets must be nested at most %d deep; this file has %d", maxNesting, nesting(src))
		return nil
	}
	var diags hcl.Diagnostics
	d.masked = mask(d.format, src)
	// Even with errors, ParseConfig returns the part of the file that it could read.
	d.file, diags = hclsyntax.ParseConfig(src, d.filename, hcl.InitialPos)
	d.diags = d.discreet(withoutEchoes(diags))
	d.broken = diags.HasErrors()
	return d.file.Body.(*hclsyntax.Body)
}

// withoutEchoes drops repeated errors: for one missing quote, the parser reports an error on each line that follows.
func withoutEchoes(diags hcl.Diagnostics) (kept hcl.Diagnostics) {
	ends := map[string]int{} // by summary: the last line of its latest error
	for _, diag := range diags {
		end, reported := ends[diag.Summary]
		if diag.Subject != nil {
			ends[diag.Summary] = diag.Subject.End.Line
		}
		if !reported || diag.Subject == nil || diag.Subject.Start.Line > end {
			kept = append(kept, diag)
		}
	}
	return kept
}

// start is the range that stands for the whole file.
func (d *decoder) start() hcl.Range {
	return hcl.Range{Filename: d.filename, Start: hcl.InitialPos, End: hcl.InitialPos}
}

// nesting returns the depth to which brackets are nested in src.
func nesting(src []byte) int {
	tokens, _ := hclsyntax.LexConfig(src, "", hcl.InitialPos)
	depth, deepest := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenOBrack,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCParen, hclsyntax.TokenCBrack,
			hclsyntax.TokenTemplateSeqEnd:
			depth--
		}
		deepest = max(deepest, depth)
	}
	return deepest
}

// body decodes the content of a block.
func (d *decoder) body(body *hclsyntax.Body, b block, in *found) {
	for _, k := range b.keys {
		if attr, given := body.Attributes[k.name]; given {
			d.key(attr, k, in)
		}
	}
	// In the order of the table: a route starts with the values of the lock block, which must be there before it.
	for _, c := range b.blocks {
		for _, blk := range body.Blocks {
			if blk.Type == c.name {
				d.child(blk, c, in)
			}
		}
	}
	d.unknown(body, b, in)
	if b.check != nil {
		b.check(in)
	}
}

// key sets a key's value, and records what is wrong with it. A value that comes of a secret is in none of the texts.
func (d *decoder) key(attr *hclsyntax.Attribute, k key, in *found) {
	v, diags := attr.Expr.Value(d.scope)
	d.diags = append(d.diags, d.discreet(diags)...)
	if diags.HasErrors() || !v.IsWhollyKnown() { // HCL has reported it, as for a variable that is not set
		in.note(k.name, attr.Expr.Range(), false)
		return
	}
	faults := k.set(v)
	in.note(k.name, attr.Expr.Range(), len(faults) == 0)
	if in.hides == nil {
		in.hides = map[string]bool{}
	}
	in.hides[k.name] = hides(k.name, attr.Expr)
	for _, f := range faults {
		if in.hides[k.name] {
			f = f.withoutValue()
		}
		if f.element < 0 {
			d.fail(attr.Expr.Range(), f.hint, "%s %s", k.name, f.text)
			continue
		}
		d.fail(elementRange(attr.Expr, f.element), f.hint, "each element of %s %s", k.name, f.text)
	}
}

// elementRange returns the range of a list's element, or of the whole list if it is not a literal.
func elementRange(list hclsyntax.Expression, element int) hcl.Range {
	if exprs, diags := hcl.ExprList(list); !diags.HasErrors() && element < len(exprs) {
		return exprs[element].Range()
	}
	return list.Range()
}

// child decodes a block in a block. One that may not be there a second time is decoded nevertheless, to report its
// errors.
func (d *decoder) child(blk *hclsyntax.Block, c child, in *found) {
	name := d.label(blk, c)
	title, again := c.name, "only one "+c.name+" block is allowed here"
	if name != "" {
		title = fmt.Sprintf("%s %q", c.name, name)
		again = title + " exists already"
	}
	if first := in.blocks[title]; first != nil && (name != "" || !c.named) {
		d.fail(blk.DefRange(), fmt.Sprintf("The first is on line %d.", first.header.Start.Line), "%s", again)
	}
	f := &found{d: d, title: title, header: blk.DefRange()}
	in.noteBlock(f)
	d.body(blk.Body, c.open(name), f)
}

// label returns the block's name, "" if it has none.
func (d *decoder) label(blk *hclsyntax.Block, c child) string {
	switch labels := len(blk.Labels); {
	case !c.named && labels == 0:
		return ""
	case !c.named:
		d.fail(blk.LabelRanges[0], "", "%s takes no name", c.name)
		return ""
	case labels == 0:
		d.fail(blk.DefRange(), fmt.Sprintf("For example: %s \"www\" { … }.", c.name), "%s needs a name", c.name)
		return ""
	case labels > 1:
		d.fail(blk.LabelRanges[1], "", "%s takes only one name", c.name)
	}
	name := blk.Labels[0]
	if _, err := blockName.parse(name); err != nil {
		f := newFault(cty.StringVal(name), err, blockName.form)
		d.fail(blk.LabelRanges[0], f.hint, "the name of a %s %s", c.name, f.text)
	}
	return name
}

// unknown reports keys and blocks that are not in the block's table. It notes them as given, so that a key written as a
// block, or the other way round, is not also reported as missing.
func (d *decoder) unknown(body *hclsyntax.Body, b block, in *found) {
	for _, name := range slices.Sorted(maps.Keys(body.Attributes)) {
		if !slices.Contains(b.keyNames(), name) {
			in.note(name, body.Attributes[name].NameRange, false)
			d.fail(in.at(name), b.hint(d.format, name), "%s has no key %q", in.title, name)
		}
	}
	for _, blk := range body.Blocks {
		if !slices.Contains(b.blockNames(), blk.Type) {
			in.note(blk.Type, blk.TypeRange, false)
			d.fail(in.at(blk.Type), b.hint(d.format, blk.Type), "%s has no block %q", in.title, blk.Type)
		}
	}
}

// fail records an error. The hint is a whole sentence or "".
func (d *decoder) fail(at hcl.Range, hint, format string, args ...any) {
	d.note(hcl.DiagError, at, hint, fmt.Sprintf(format, args...))
}

// note records a diagnostic.
func (d *decoder) note(severity hcl.DiagnosticSeverity, at hcl.Range, hint, summary string) {
	d.diags = append(d.diags, &hcl.Diagnostic{
		Severity: severity,
		Summary:  summary,
		Detail:   hint,
		Subject:  &at,
	})
}

// report returns everything recorded, in the order of the file.
func (d *decoder) report() Report {
	if len(d.diags) == 0 {
		return Report{}
	}
	for _, diag := range d.diags {
		if diag.Subject == nil { // HCL sets none for some errors
			diag.Subject = d.start().Ptr()
		}
	}
	slices.SortStableFunc(d.diags, func(a, b *hcl.Diagnostic) int {
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return Report{d.diags, map[string]*hcl.File{d.filename: d.shownFile()}}
}

// shownFile returns the file as a report may show it.
func (d *decoder) shownFile() *hcl.File {
	if d.file == nil {
		return nil
	}
	return &hcl.File{Body: d.file.Body, Bytes: d.masked.text, Nav: discreetNav{d.file.Nav, allBlocks(d.format)}}
}

// discreetNav names the blocks of a file, except unknown ones, whose names could be part of a secret.
type discreetNav struct {
	nav    any
	blocks []string // that are known
}

// ContextString returns the block that contains an offset.
func (n discreetNav) ContextString(offset int) string {
	nav, ok := n.nav.(interface{ ContextString(offset int) string })
	if !ok {
		return ""
	}
	context := nav.ContextString(offset)
	if name, _, _ := strings.Cut(context, " "); !slices.Contains(n.blocks, name) {
		return ""
	}
	return context
}
