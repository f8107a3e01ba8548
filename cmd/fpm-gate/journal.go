package main

import (
	"bytes"
	"io"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hashicorp/go-hclog"
)

// loggerOptions are those of a logger to w. Where stderr is the journal, levels become its priorities, and the time is
// left to it.
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

// toJournal reports whether systemd takes stderr for the journal.
func toJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// errorsTo returns where errors go that are not a log: to w, in the journal with their priority.
func errorsTo(w io.Writer) io.Writer {
	if toJournal() {
		return withPriority(w, journal.PriErr)
	}
	return w
}

// priorityWriter begins each line with a priority, as sd-daemon(3) has it. The journal takes each line for a message.
type priorityWriter struct {
	w      io.Writer
	prefix []byte
}

func withPriority(w io.Writer, p journal.Priority) io.Writer {
	return &priorityWriter{w, []byte{'<', '0' + byte(p), '>'}}
}

// Write expects whole lines, and writes them at once.
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
