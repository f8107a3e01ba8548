package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/config"
)

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // invalid usage or config: a retry would not help
)

// failure is an error of the command's work. Any other error is one of the command line or the config.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// failed wraps err in a failure; nil stays nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// report writes err to w, which leads to stderr: problems on a line each, and of an invalid config all errors, each
// with its place.
func report(w io.Writer, err error) {
	var text bytes.Buffer
	defer func() { _, _ = errorsTo(w).Write(text.Bytes()) }()
	var wrong *config.Error
	if errors.As(err, &wrong) {
		_ = wrong.Write(&text, terminalWidth, isTerminal(os.Stderr))
		return
	}
	all := problems{err}
	errors.As(err, &all)
	for _, err := range all {
		fmt.Fprintln(&text, "fpm-gate:", err)
	}
	if errors.As(err, new(*usageError)) {
		fmt.Fprintln(&text, "Run fpm-gate --help for usage.")
	}
}

// problems are several errors in one line, as the log has them.
type problems []error

func (p problems) Error() string { return p.list("; ") }

// list returns the texts of the errors with something between them.
func (p problems) list(between string) string {
	var all []string
	for _, err := range p {
		all = append(all, err.Error())
	}
	return strings.Join(all, between)
}

// usageError is an error in the command line.
type usageError struct{ error }

const terminalWidth = 100 // columns at which error reports wrap

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}

// noArgs refuses arguments, and suggests a command if one was mistyped.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		return &usageError{fmt.Errorf("unknown command %q; did you mean %q?", args[0], s[0])}
	}
	return &usageError{fmt.Errorf("unexpected argument %q", args[0])}
}
