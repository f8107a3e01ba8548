package config

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Report is the errors and warnings of a file, in the order of the file. The zero Report is empty.
type Report struct {
	diags hcl.Diagnostics
	files map[string]*hcl.File
}

// Lines returns each problem as one line, `fpm-gate.hcl:3: lease must be at least 3s; got "1s"`.
func (r Report) Lines() []string {
	var lines []string
	for _, diag := range r.diags {
		lines = append(lines, line(diag))
	}
	return lines
}

// Write prints each problem with its place and, unless it may hold a secret, the line of the file. Text wraps at width
// columns; 0: it does not wrap. color adds escape codes for a terminal.
func (r Report) Write(w io.Writer, width uint, color bool) error {
	var text bytes.Buffer
	if err := hcl.NewDiagnosticTextWriter(&text, r.files, width, color).WriteDiagnostics(r.diags); err != nil {
		return err
	}
	_, err := w.Write(fillers.ReplaceAll(text.Bytes(), []byte("…")))
	return err
}

// errors returns the number of problems without the warnings.
func (r Report) errors() int {
	return len(r.diags.Errs())
}

func line(diag *hcl.Diagnostic) string {
	s := diag.Summary
	if diag.Detail != "" {
		s += ": " + diag.Detail
	}
	s = strings.Join(strings.Fields(s), " ")
	return fmt.Sprintf("%s:%d: %s", diag.Subject.Filename, diag.Subject.Start.Line, s)
}

// Error is returned when a config is invalid. It holds all errors and warnings of the file.
type Error struct {
	Report
}

// Error returns the first error on one line, and the number of further ones.
func (e *Error) Error() string {
	more := ""
	switch n := e.errors() - 1; {
	case n == 1:
		more = " (and 1 more problem)"
	case n > 1:
		more = fmt.Sprintf(" (and %d more problems)", n)
	}
	for _, diag := range e.diags {
		if diag.Severity == hcl.DiagError {
			return line(diag) + more
		}
	}
	return "invalid config" // not reached: an Error has at least one error
}
