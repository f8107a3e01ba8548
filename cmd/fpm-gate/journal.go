package main

import (
	"bytes"
	"io"
	"os"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
)

// newLogger logs to stderr as the config says. Where stderr is the journal, levels become its priorities, and the
// time is left to it.
func newLogger(c *config.Config) hclog.Logger {
	o := &hclog.LoggerOptions{
		Name:       "fpm-gate",
		Level:      hclog.LevelFromString(c.Log.Level),
		JSONFormat: c.Log.Format == config.FormatJSON,
		Output:     os.Stderr,
	}
	if toJournal() {
		o.DisableTime = true
		o.Output = hclog.NewLeveledWriter(withPriority(os.Stderr, journal.PriInfo), map[hclog.Level]io.Writer{
			hclog.Trace: withPriority(os.Stderr, journal.PriDebug),
			hclog.Debug: withPriority(os.Stderr, journal.PriDebug),
			hclog.Warn:  withPriority(os.Stderr, journal.PriWarning),
			hclog.Error: withPriority(os.Stderr, journal.PriErr),
		})
	}
	return hclog.New(o)
}

// toJournal says whether systemd takes stderr for the journal.
func toJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// stderr is where errors go that are no log: to the journal with their priority.
func stderr() io.Writer {
	if toJournal() {
		return withPriority(os.Stderr, journal.PriErr)
	}
	return os.Stderr
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
