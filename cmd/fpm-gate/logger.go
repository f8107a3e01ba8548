package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
)

// logs is the log of the process, on stderr. A reload changes its level and its format.
type logs struct {
	*logger
	sink *logSink
}

func newLogs(c *config.Config) *logs {
	sink := newLogSink(os.Stderr)
	asJSON := new(atomic.Bool)
	// Both exist all the time, so that a reload can change the format without making loggers anew.
	make := func(json bool) hclog.Logger {
		return hclog.New(loggerOptions(sink, hclog.LevelFromString(c.Log.Level), json))
	}
	l := &logs{&logger{make(false), make(true), asJSON}, sink}
	l.configure(c.Log)
	sink.recovered = func(lines uint64) {
		l.Warn("log lines lost; the program that reads stderr was slow or had ended, or the disk was full",
			"lines_lost", lines)
	}
	return l
}

// configure makes level and format those of a config.
func (l *logs) configure(c config.Log) {
	l.SetLevel(hclog.LevelFromString(c.Level))
	l.asJSON.Store(c.Format == config.FormatJSON)
}

// logger logs as text or as JSON, as currently configured. A value with a line break never starts a second line:
// visitors choose the paths that are logged, and to the journal each line is a message. hclog's text format would
// spread such a value over several lines.
type logger struct {
	hclog.Logger // logs as text
	json         hclog.Logger
	asJSON       *atomic.Bool
}

// Log logs a message with pairs of keys and values. It checks the level for JSON first, because forJSON copies the
// pairs.
func (l *logger) Log(level hclog.Level, msg string, pairs ...any) {
	if l.asJSON.Load() {
		if level >= l.json.GetLevel() {
			l.json.Log(level, msg, forJSON(pairs)...)
		}
		return
	}
	l.Logger.Log(level, oneLine(msg), onOneLine(pairs)...)
}

// Trace, Debug, Info, Warn and Error are Log at their levels.
func (l *logger) Trace(msg string, pairs ...any) { l.Log(hclog.Trace, msg, pairs...) }
func (l *logger) Debug(msg string, pairs ...any) { l.Log(hclog.Debug, msg, pairs...) }
func (l *logger) Info(msg string, pairs ...any)  { l.Log(hclog.Info, msg, pairs...) }
func (l *logger) Warn(msg string, pairs ...any)  { l.Log(hclog.Warn, msg, pairs...) }
func (l *logger) Error(msg string, pairs ...any) { l.Log(hclog.Error, msg, pairs...) }

// With returns a logger that adds pairs to each message.
func (l *logger) With(pairs ...any) hclog.Logger {
	return &logger{l.Logger.With(onOneLine(pairs)...), l.json.With(forJSON(pairs)...), l.asJSON}
}

// Named returns a logger with name appended to its own.
func (l *logger) Named(name string) hclog.Logger {
	return &logger{l.Logger.Named(name), l.json.Named(name), l.asJSON}
}

// ResetNamed returns a logger of that name.
func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{l.Logger.ResetNamed(name), l.json.ResetNamed(name), l.asJSON}
}

// SetLevel sets the level of the logger and of those derived from it.
func (l *logger) SetLevel(level hclog.Level) {
	l.Logger.SetLevel(level)
	l.json.SetLevel(level)
}

// StandardWriter returns a writer that logs each line as a message.
func (l *logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	level := hclog.Info
	if o != nil && o.ForceLevel != hclog.NoLevel {
		level = o.ForceLevel
	}
	return &messageWriter{l, level}
}

// StandardLogger returns a standard library logger that writes to StandardWriter.
func (l *logger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

// messageWriter logs what is written to it, for packages that take a log.Logger or a writer. They write one message at
// a time, with a line break at its end.
type messageWriter struct {
	log   *logger
	level hclog.Level
}

func (w *messageWriter) Write(text []byte) (int, error) {
	w.log.Log(w.level, string(bytes.TrimRight(text, " \t\r\n")))
	return len(text), nil
}

// onOneLine returns the pairs with line breaks escaped. hclog itself escapes all other control characters.
func onOneLine(pairs []any) []any {
	cloned := false
	for i, v := range pairs {
		s, ok := textOf(v)
		if !ok || !strings.Contains(s, "\n") {
			continue
		}
		if !cloned {
			pairs, cloned = append([]any(nil), pairs...), true
		}
		pairs[i] = hclog.Quote(s)
	}
	return pairs
}

// textOf returns the text that v is logged as, and false for numbers and lists.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case error:
		return v.Error(), true
	case fmt.Stringer:
		return v.String(), true
	case []byte:
		return string(v), true
	}
	return "", false
}

// forJSON returns pairs in which Stringers, such as addresses, and lists of them are the texts that a log in text
// shows. Values that marshal themselves stay as they are.
func forJSON(pairs []any) []any {
	shown := slices.Clone(pairs)
	for i, v := range pairs {
		switch v := v.(type) {
		case error, encoding.TextMarshaler, json.Marshaler:
		case fmt.Stringer:
			shown[i] = v.String()
		default:
			if texts, ok := textsOf(v); ok {
				shown[i] = texts
			}
		}
	}
	return shown
}

// textsOf returns the texts of a list of Stringers.
func textsOf(v any) ([]string, bool) {
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice || !list.Type().Elem().Implements(reflect.TypeFor[fmt.Stringer]()) {
		return nil, false
	}
	texts := make([]string, list.Len())
	for i := range texts {
		texts[i] = list.Index(i).Interface().(fmt.Stringer).String()
	}
	return texts, true
}

// oneLine escapes line breaks.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", `\n`) }

// sinkLines is how many lines may wait to be written. A line usually has some hundreds of bytes, so all together have
// about a MiB.
const sinkLines = 4096

// logSink writes the log in the background, so that no request waits when the program that reads it (a logger at the
// end of a pipe, say) is slow, hangs or ends, or when the disk is full. Lines that cannot be written are counted.
type logSink struct {
	w         io.Writer
	lines     chan logLine
	lost      atomic.Uint64
	failing   atomic.Bool        // the last line was lost
	recovered func(lines uint64) // called when a write succeeds after lines were lost
}

// logLine is a line to write, or a channel to close when all lines before it are written.
type logLine struct {
	text    []byte
	written chan<- struct{}
}

func newLogSink(w io.Writer) *logSink {
	s := &logSink{w: w, lines: make(chan logLine, sinkLines)}
	go s.run()
	return s
}

// Write queues a line. It never waits and never fails. It copies the line, whose memory hclog uses again.
func (s *logSink) Write(line []byte) (int, error) {
	select {
	case s.lines <- logLine{text: bytes.Clone(line)}:
	default:
		s.lost.Add(1)
		s.failing.Store(true)
	}
	return len(line), nil
}

// run writes the lines, one at a time. Only it calls w.Write, so a line that hangs delays no request.
func (s *logSink) run() {
	// How many lost lines recovered was called for.
	reported := uint64(0)
	cut := false // the last bytes written are a part of a line
	for line := range s.lines {
		if line.written != nil {
			close(line.written)
			continue
		}
		text := line.text
		if cut {
			text = append([]byte("\n"), text...) // so that it does not become the rest of that line
		}
		n, err := s.w.Write(text)
		if n > 0 {
			cut = n < len(text)
		}
		if err != nil {
			s.lost.Add(1)
			s.failing.Store(true)
			continue
		}
		s.failing.Store(false)
		if lost := s.lost.Load(); lost > reported && s.recovered != nil {
			s.recovered(lost - reported)
			reported = lost
		}
	}
}

// flush waits until everything logged so far is written, but at most a second. The process ends after it, so what a
// reader that hangs has not taken by then is lost.
func (s *logSink) flush() {
	written := make(chan struct{})
	timeout := time.After(time.Second)
	select {
	case s.lines <- logLine{written: written}:
	case <-timeout:
		return
	}
	select {
	case <-written:
	case <-timeout:
	}
}
