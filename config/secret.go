package config

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Reports go to the journal, which more people can read than the config. So no report shows the value of a secret key
// or of a function. It shows a line of the file only if all of the line is known to be harmless: after a typo in a key,
// a missing quote or a misplaced line, the text may belong to a secret.

// isSecret reports whether a report must not show the value of a key.
func isSecret(key string) bool { return key == "password" || key == "secret" || key == "keys" }

// hidden replaces a value in a message.
const hidden = "a value that is not shown"

// mayHoldSecret matches values of other keys that may contain a password, such as PHP's session.save_path or a URL.
var mayHoldSecret = regexp.MustCompile(`(?i)pass|secret|token|auth|base64:|@`)

// mistypedKeys matches the key of a tls block, which is a path, where it is none: keys may be meant.
var mistypedKeys = regexp.MustCompile(`\bkey\s*=\s*(?:[^"\s]|"[^/])`)

// hides reports whether a report must not show the value that was given for a key.
func hides(key string, expr hclsyntax.Expression) bool {
	if isSecret(key) {
		return true
	}
	calls := false
	_ = hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if _, is := n.(*hclsyntax.FunctionCallExpr); is {
			calls = true
		}
		return nil
	})
	return calls
}

// shownSafely returns shown(v), or hidden if v may contain a secret.
func shownSafely(v cty.Value) string {
	if !v.IsNull() && v.Type() == cty.String && mayHoldSecret.MatchString(v.AsString()) {
		return hidden
	}
	return shown(v)
}

// shown returns a value as written in a config, shortened.
func shown(v cty.Value) string {
	const most = 80
	switch t := v.Type(); {
	case v.IsNull():
		return "null"
	case t == cty.String:
		if r := []rune(v.AsString()); len(r) > most {
			return strconv.Quote(string(r[:most]) + "…")
		}
		return strconv.Quote(v.AsString())
	case t == cty.Number:
		return v.AsBigFloat().Text('g', 10)
	case t == cty.Bool:
		return strconv.FormatBool(v.True())
	case t.IsTupleType() || t.IsListType():
		return "a list"
	}
	return "an object"
}

// callFailed matches HCL's error for a failed call of one of our functions. Those name no secret.
var callFailed = regexp.MustCompile(`^Call to function "(env|credential|file)" failed: `)

// inQuotation matches what HCL quotes from the file in its own errors.
var inQuotation = regexp.MustCompile(`"[^"]*"`)

// discreet removes quotations of lines that must not be shown from HCL's own errors.
func (d *decoder) discreet(diags hcl.Diagnostics) hcl.Diagnostics {
	for _, diag := range diags {
		if diag.Subject == nil || callFailed.MatchString(diag.Detail) || !d.masked.hides(*diag.Subject) {
			continue
		}
		diag.Summary = inQuotation.ReplaceAllString(diag.Summary, `"…"`)
		diag.Detail = inQuotation.ReplaceAllString(diag.Detail, `"…"`)
	}
	return diags
}

// masked is the text of a file with fillers in place of what a report must not show. It has the length of the file, so
// that offsets are the same.
type masked struct {
	text   []byte
	hidden []bool // by line: it has fillers
}

// filler replaces a byte. A run of fillers is printed as one ellipsis, which hides the length.
const filler = 0

var fillers = regexp.MustCompile(`\x00+`)

// hides reports whether a line of the range has fillers.
func (m *masked) hides(r hcl.Range) bool {
	for line := r.Start.Line; line <= max(r.End.Line, r.Start.Line); line++ {
		if line >= 1 && line <= len(m.hidden) && m.hidden[line-1] {
			return true
		}
	}
	return false
}

var (
	// A line that starts or ends a block, with its name if it has one.
	blockLine = regexp.MustCompile(`^\s*(?:([a-z_]+)(?:\s+"[^"]*")*\s*\{\s*)?[\]}\s]*$`)
	// The keys of a line without its strings.
	keysOfLine = regexp.MustCompile(`([A-Za-z0-9_-]*)\s*=`)
	// A line with one element of a list that spans several lines.
	elementLine = regexp.MustCompile(`^\s*(?:"[^"\\$%]*"|[0-9.]+)\s*,?\s*\]?\s*$`)
	// The part that may be shown of a line that may hold a secret: its key, or the type of a block.
	headOfLine = regexp.MustCompile(`^\s*(?:[a-z_]+\s*(?:"[A-Za-z0-9._-]*"\s*)?\{\s*)?` +
		`(?:[A-Za-z_][A-Za-z0-9_-]{0,30}\s*=(?:\s|"|$)|[A-Za-z_][A-Za-z0-9_-]{0,30}\s+["{])`)
	heredoc = regexp.MustCompile(`<<-?([A-Za-z_][A-Za-z0-9_-]*)`)
)

// masker masks a file line by line.
type masker struct {
	keys, blocks []string // that hold no secret
	inList       bool     // of a harmless key
	inQuotes     bool     // a hidden line has left a quote open
	marker       string   // the end of the current heredoc; "": not in one
}

// mask masks a file of that format.
func mask(format block, src []byte) *masked {
	m, state := &masked{text: []byte{}}, masker{keys: harmlessKeys(format), blocks: allBlocks(format)}
	for line := range bytes.Lines(src) {
		text := strings.TrimRight(string(line), "\r\n")
		shown := state.shown(text)
		m.text = append(m.text, line[:shown]...)
		m.text = append(m.text, bytes.Repeat([]byte{filler}, len(text)-shown)...)
		m.text = append(m.text, line[len(text):]...)
		m.hidden = append(m.hidden, shown < len(text))
	}
	return m
}

// shown returns the number of bytes of the next line that may be shown.
func (m *masker) shown(text string) int {
	switch {
	case m.marker != "":
		if strings.TrimSpace(text) == m.marker {
			m.marker = ""
		}
		return 0
	case m.inQuotes:
		m.inQuotes = strings.Count(text, `"`)%2 == 0
		return 0
	case m.harmless(text):
		return len(text)
	}
	if found := heredoc.FindStringSubmatch(text); found != nil {
		m.marker = found[1]
	}
	m.inQuotes = strings.Count(text, `"`)%2 == 1
	return len(strings.TrimRight(headOfLine.FindString(text), `"{`))
}

// harmless reports whether a line cannot contain a secret.
func (m *masker) harmless(text string) bool {
	inList := m.inList
	m.inList = false
	if mayHoldSecret.MatchString(text) || mistypedKeys.MatchString(text) || strings.Contains(text, "<<") {
		return false
	}
	if block := blockLine.FindStringSubmatch(text); block != nil {
		m.inList = inList && strings.TrimSpace(text) == ""
		return block[1] == "" || slices.Contains(m.blocks, block[1])
	}
	bare := inQuotation.ReplaceAllString(text, `""`)
	if keys := keysOfLine.FindAllStringSubmatch(bare, -1); len(keys) > 0 {
		ok := !slices.ContainsFunc(keys, func(key []string) bool { return !slices.Contains(m.keys, key[1]) })
		m.inList = ok && strings.Contains(bare, "[") && !strings.Contains(bare, "]")
		return ok
	}
	ok := inList && elementLine.MatchString(text)
	m.inList = ok && !strings.Contains(bare, "]")
	return ok
}

// harmlessKeys returns the keys that hold no secret, of a block and the blocks inside it.
func harmlessKeys(b block) (keys []string) {
	for _, name := range b.keyNames() {
		if !isSecret(name) {
			keys = append(keys, name)
		}
	}
	for _, c := range b.blocks {
		keys = append(keys, harmlessKeys(c.open(""))...)
	}
	return keys
}
