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
		Short: "Compare real servers with and without the gate",
		Long: `Compare real servers with and without the gate. The demo starts nginx and PHP-FPM on
loopback, in a temporary folder, with and without fpm-gate between them. It runs six
short scenarios on both and prints the measurements as a table.

  1  two scripts of one session at once
  2  a burst of AJAX requests of one session, while other visitors browse
  3  a script that hangs, and its visitor
  4  a visitor who reloads again and again
  5  two hosts that share their sessions, and their locks
  6  an export that closes its session, and its progress bar

nginx and PHP-FPM must be installed. The demo takes 75 seconds. It stops everything
that it has started, even if interrupted.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Parts, err = demo.ParseParts(only); err != nil {
				return &usageError{err}
			}
			return failed(runDemo(cmd.Context(), o))
		},
	}
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print the figures as JSON")
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "keep the folder with all configs and logs")
	cmd.Flags().StringVar(&only, "only", "", "run only these `parts`, such as 1,3")
	return cmd
}

// runDemo runs the demo until it ends or a signal stops it. A second signal kills the process.
func runDemo(ctx context.Context, o demo.Options) (err error) {
	if o.Binary, err = os.Executable(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	return demo.Run(ctx, o)
}
