// Command fpm-gate lets the requests of one PHP session through to PHP-FPM one at a time. Requests that wait do so in
// fpm-gate instead of occupying PHP-FPM's workers.
//
// The README describes when to use it, and config/fpm-gate.hcl every setting.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/config"
)

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // invalid usage or config: a retry would not help
)

func main() {
	root := rootCommand()
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return
	}
	report(os.Stderr, err)
	var failed *failure
	if errors.As(err, &failed) {
		os.Exit(exitFailed)
	}
	os.Exit(exitUsage)
}

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

// usageError is an error in the command line.
type usageError struct{ error }

const terminalWidth = 100 // columns at which error reports wrap

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fpm-gate",
		Short: "Lets the requests of one PHP session through to PHP-FPM one at a time",
		Long: `fpm-gate runs between a web server and PHP-FPM. It finds the PHP session id in each
request and lets the requests of one session through one at a time. A request that
waits costs a few kilobytes of memory here, instead of a PHP-FPM worker.

Exit codes: 0 success, 1 failure, 2 invalid usage or config.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       versionText(),
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &usageError{errors.New("no command given")}
		},
	}
	root.SuggestionsMinimumDistance = 2 // typos in a command up to which another is suggested
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(serveCommand(), checkCommand(), initCommand(), locksCommand(), whyCommand(), breakCommand(),
		pauseCommand(), resumeCommand(),
		healthCommand(), helperCommand(), demoCommand(), versionCommand())
	return root
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
