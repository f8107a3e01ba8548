// Command fpm-gate lets the requests of one PHP session through to PHP-FPM one at a time, so that those which
// have to wait do not wait inside PHP-FPM's workers.
//
// See the README for what it is for, and config/fpm-gate.hcl for all that can be configured.
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
	exitUsage  = 2 // wrong usage or config: trying again would not help
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

// failure is an error of the work itself. All others are of the command line or the config.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

// failed makes err one of the work; nil stays nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// report writes err to w, which is stderr or leads there; an invalid config with all its errors, each with its place in
// the file.
func report(w io.Writer, err error) {
	var text bytes.Buffer
	defer func() { _, _ = errorsTo(w).Write(text.Bytes()) }()
	var wrong *config.Error
	if errors.As(err, &wrong) {
		_ = wrong.Write(&text, terminalWidth, isTerminal(os.Stderr))
		return
	}
	fmt.Fprintln(&text, "fpm-gate:", err)
	if errors.As(err, new(*usageError)) {
		fmt.Fprintln(&text, "Run fpm-gate --help for usage.")
	}
}

// usageError is that of a command line that makes no sense.
type usageError struct{ error }

const terminalWidth = 100

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fpm-gate",
		Short: "Lets the requests of one PHP session through to PHP-FPM one at a time",
		Long: `fpm-gate stands between a web server and PHP-FPM. It finds the PHP session id in
each request and lets the requests of one session through one at a time: those that
wait do so here, as a few kilobytes of memory, and not as a whole PHP-FPM worker.

Exit codes: 0 done, 1 failed, 2 wrong usage or config.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       versionText(),
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &usageError{errors.New("say what to do: a command is missing")}
		},
	}
	root.SuggestionsMinimumDistance = 2 // letters that may be wrong in a command
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(serveCommand(), checkCommand(), locksCommand(), breakCommand(), demoCommand(), versionCommand())
	return root
}

// noArgs refuses arguments, with words that help who mistyped a command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		return &usageError{fmt.Errorf("there is no command %q; did you mean %q?", args[0], s[0])}
	}
	return &usageError{fmt.Errorf("unexpected argument %q", args[0])}
}
