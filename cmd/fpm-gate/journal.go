package main

import (
	"bytes"
	"io"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hashicorp/go-hclog"
)

// loggerOptions returns the options of a logger to w. If stderr is the journal, lines get its priorities for the
// levels, and no time, which the journal adds.
func loggerOptions(w io.Writer, level hclog.Level, json bool) *hclog.LoggerOptions {
	o := &hclog.LoggerOptions{Name: "fpm-gate", Level: level, JSONFormat: json, Output: w}
	if toJournal() {
		o.DisableTime = true
		o.Output = hclog.NewLeveledWriter(withPriority(w, journal.PriInfo), map[hclog.Level]io.Writer{
			hclog.Trace: withPriority(w, journal.PriDebug),
			hclog.Debug: withPriority(w, journal.PriDebug),
			hclog.Warn:  withPriority(w, journal.PriWarning),
			hclog.Error: withPriority(w, journal.PriErr),
		})
	}
	return o
}

// toJournal reports whether stderr is connected to the journal.
func toJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// errorsTo returns the writer for errors that are not log messages: w, with the priority if it is the journal.
func errorsTo(w io.Writer) io.Writer {
	if toJournal() {
		return withPriority(w, journal.PriErr)
	}
	return w
}

// priorityWriter prefixes each line with a priority as in sd-daemon(3). To the journal, each line is a message.
type priorityWriter struct {
	w      io.Writer
	prefix []byte
}

func withPriority(w io.Writer, p journal.Priority) io.Writer {
	return &priorityWriter{w, []byte{'<', '0' + byte(p), '>'}}
}

// Write expects whole lines, and writes them in one call.
func (p *priorityWriter) Write(text []byte) (int, error) {
	var out []byte
	for line := range bytes.Lines(text) {
		out = append(append(out, p.prefix...), line...)
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(text), nil
}
