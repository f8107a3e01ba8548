package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// block is what a block of the file may hold.
type block struct {
	keys   []key
	blocks []child
	check  func(*found) // what takes more than one value to judge; nil: nothing
}

// key is one row of a block's table.
type key struct {
	name string
	set  setter
}

// child is a block within a block. open is called for each one found, before it is decoded.
type child struct {
	name  string
	named bool // takes a name and may come often; else it comes once at most
	open  func(name string) block
}

const (
	named   = true
	unnamed = false
)

// decoder fills a config by the tables of its blocks. It never stops at a problem: it keeps the
// default, notes what is wrong, and goes on.
type decoder struct {
	filename string
	file     *hcl.File
	masked   *masked // what of the file may be shown
	scope    *hcl.EvalContext
	broken   bool // the syntax is wrong: something may be missing only because it could not be read
	diags    hcl.Diagnostics
}

func newDecoder(filename string) *decoder {
	return &decoder{
		filename: filename,
		scope:    &hcl.EvalContext{Functions: map[string]function.Function{"env": env}},
	}
}

// The parser calls itself for every bracket, so a senseless file could exhaust the stack. These
// bounds are far beyond any real config.
const (
	maxFileSize = 128 << 10
	maxNesting  = 100
)

// parse returns the file's body, as much of it as can be read, or nil.
func (d *decoder) parse(src []byte) *hclsyntax.Body {
	d.masked = &masked{} // of a file that is too long, nothing
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
	d.masked = mask(src)
	d.file, diags = hclsyntax.ParseConfig(src, d.filename, hcl.InitialPos)
	d.diags = d.discreet(withoutEchoes(diags))
	d.broken = diags.HasErrors()
	return d.file.Body.(*hclsyntax.Body)
}

// withoutEchoes drops what repeats the complaint before it on the line where that ends: for one
// forgotten quote the parser complains of each line that follows.
func withoutEchoes(diags hcl.Diagnostics) (kept hcl.Diagnostics) {
	ends := map[string]int{} // by summary: the line on which it was last said
	for _, diag := range diags {
		end, said := ends[diag.Summary]
		if diag.Subject != nil {
			ends[diag.Summary] = diag.Subject.End.Line
		}
		if !said || diag.Subject == nil || diag.Subject.Start.Line > end {
			kept = append(kept, diag)
		}
	}
	return kept
}

// start points at the file as a whole.
func (d *decoder) start() hcl.Range {
	return hcl.Range{Filename: d.filename, Start: hcl.InitialPos, End: hcl.InitialPos}
}

// nesting returns how deep the brackets of src are nested.
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

// body decodes what stands between a block's braces.
func (d *decoder) body(body *hclsyntax.Body, b block, in *found) {
	for _, k := range b.keys {
		if attr, given := body.Attributes[k.name]; given {
			d.key(attr, k, in)
		}
	}
	for _, c := range b.blocks {
		for _, blk := range body.Blocks {
			if blk.Type == c.name {
				d.child(blk, c, in)
			}
		}
	}
	d.strangers(body, b, in)
	if b.check != nil {
		b.check(in)
	}
}

func (d *decoder) key(attr *hclsyntax.Attribute, k key, in *found) {
	v, diags := attr.Expr.Value(d.scope)
	d.diags = append(d.diags, d.discreet(diags)...)
	if diags.HasErrors() || !v.IsWhollyKnown() {
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
		d.fail(elementRange(attr.Expr, f.element), f.hint, "each of %s %s", k.name, f.text)
	}
}

// elementRange points at an element of a list, or at the whole list if it was not written as one.
func elementRange(list hclsyntax.Expression, element int) hcl.Range {
	if exprs, diags := hcl.ExprList(list); !diags.HasErrors() && element < len(exprs) {
		return exprs[element].Range()
	}
	return list.Range()
}

func (d *decoder) child(blk *hclsyntax.Block, c child, in *found) {
	name := d.label(blk, c)
	title, again := c.name, "only one "+c.name+" block is allowed here"
	if name != "" {
		title = fmt.Sprintf("%s %q", c.name, name)
		again = title + " is there already"
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
		d.fail(blk.DefRange(), fmt.Sprintf("Such as %s \"www\" { … }.", c.name), "%s needs a name", c.name)
		return ""
	case labels > 1:
		d.fail(blk.LabelRanges[1], "", "%s takes one name only", c.name)
	}
	name := blk.Labels[0]
	if _, err := blockName.parse(name); err != nil {
		f := newFault(cty.StringVal(name), err, blockName.form)
		d.fail(blk.LabelRanges[0], f.hint, "the name of a %s %s", c.name, f.text)
	}
	return name
}

// strangers complains about keys and blocks that are not in the block's table. They are noted, so
// that nobody asks for a key that was only written as a block, or the other way round.
func (d *decoder) strangers(body *hclsyntax.Body, b block, in *found) {
	for _, name := range slices.Sorted(maps.Keys(body.Attributes)) {
		if !slices.Contains(b.keyNames(), name) {
			in.note(name, body.Attributes[name].NameRange, false)
			d.fail(in.at(name), b.hint(name), "%s has no key %q", in.title, name)
		}
	}
	for _, blk := range body.Blocks {
		if !slices.Contains(b.blockNames(), blk.Type) {
			in.note(blk.Type, blk.TypeRange, false)
			d.fail(in.at(blk.Type), b.hint(blk.Type), "%s has no block %q", in.title, blk.Type)
		}
	}
}

func (b block) keyNames() (names []string) {
	for _, k := range b.keys {
		names = append(names, k.name)
	}
	return names
}

func (b block) blockNames() (names []string) {
	for _, c := range b.blocks {
		names = append(names, c.name)
	}
	return names
}

// fail notes an error. The hint, a whole sentence, may be "".
func (d *decoder) fail(at hcl.Range, hint, format string, args ...any) {
	d.note(hcl.DiagError, at, hint, fmt.Sprintf(format, args...))
}

func (d *decoder) note(severity hcl.DiagnosticSeverity, at hcl.Range, hint, summary string) {
	d.diags = append(d.diags, &hcl.Diagnostic{
		Severity: severity,
		Summary:  summary,
		Detail:   hint,
		Subject:  &at,
	})
}

// report returns everything noted, in the order of the file.
func (d *decoder) report() Report {
	if len(d.diags) == 0 {
		return Report{}
	}
	for _, diag := range d.diags {
		if diag.Subject == nil { // which HCL leaves open
			diag.Subject = d.start().Ptr()
		}
	}
	slices.SortStableFunc(d.diags, func(a, b *hcl.Diagnostic) int {
		return a.Subject.Start.Byte - b.Subject.Start.Byte
	})
	return Report{d.diags, map[string]*hcl.File{d.filename: d.shownFile()}}
}

// shownFile is the file as a report may show it.
func (d *decoder) shownFile() *hcl.File {
	if d.file == nil {
		return nil
	}
	return &hcl.File{Body: d.file.Body, Bytes: d.masked.text, Nav: discreetNav{d.file.Nav}}
}

// discreetNav names the blocks of a file, but not those that no config has: what stands there may be anything.
type discreetNav struct{ nav any }

// ContextString returns the block in which an offset is.
func (n discreetNav) ContextString(offset int) string {
	nav, ok := n.nav.(interface{ ContextString(offset int) string })
	if !ok {
		return ""
	}
	context := nav.ContextString(offset)
	if name, _, _ := strings.Cut(context, " "); !slices.Contains(allBlocks(newFile().block()), name) {
		return ""
	}
	return context
}
