// Command fpm-gate lets the requests of one PHP session through to PHP-FPM one at a time. Requests that wait do so in
// fpm-gate instead of occupying PHP-FPM's workers.
//
// The README describes when to use it, and config/fpm-gate.hcl every setting.
package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
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

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fpm-gate",
		Short: "Lets the requests of one PHP session through to PHP-FPM one at a time",
		Long: `fpm-gate runs between a web server and PHP-FPM. It finds the PHP session id in each
request and lets the requests of one session through one at a time. A request that
waits costs 15 KiB of memory here, instead of a PHP-FPM worker.

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
