package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/internal/demo"
)

func demoCommand() *cobra.Command {
	o := demo.Options{Out: os.Stdout, Progress: os.Stderr}
	var only string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the problem and the gate side by side, on real servers",
		Long: `Show the problem and the gate side by side: nginx and PHP-FPM are started on loopback
under a temporary folder, with and without fpm-gate between them, and six short
stories are run on both. What was measured is shown as a table.

  1  two scripts of one session at once
  2  a burst of AJAX requests of one session, while other visitors browse
  3  a script that hangs, and its visitor
  4  a visitor who reloads again and again
  5  two hosts that share their sessions, and their locks
  6  an export that closes its session, and its progress bar

nginx and PHP-FPM have to be installed. It takes a good minute, and everything that
was started is ended, also by Ctrl-C.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Parts, err = demo.ParseParts(only); err != nil {
				return &usageError{err}
			}
			return failed(runDemo(cmd.Context(), o))
		},
	}
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print the figures as JSON")
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "leave the folder with all configs and logs")
	cmd.Flags().StringVar(&only, "only", "", "run these `parts` only, such as 1,3")
	return cmd
}

// runDemo runs the demo until it is done or a signal ends it; a second signal ends it at once.
func runDemo(ctx context.Context, o demo.Options) (err error) {
	if o.Binary, err = os.Executable(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	return demo.Run(ctx, o)
}
