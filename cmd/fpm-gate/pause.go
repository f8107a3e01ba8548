package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
)

// pauseFlags are the flags of pause.
type pauseFlags struct {
	adminFlags
	wait  bool
	limit time.Duration
}

func pauseCommand() *cobra.Command {
	var f pauseFlags
	cmd := &cobra.Command{
		Use:   "pause [GATE]",
		Short: "Have new requests wait, so that PHP-FPM becomes idle",
		Long: `Have new requests wait in the gate, or in all gates, while those in PHP-FPM end. Meant for
a deploy, a change of the database's schema, or a restart of PHP-FPM. "fpm-gate resume"
ends the pause, and so does the time of --for. A request waits for queue_timeout of its
gate at the most, and then gets a 503; so do those beyond 1,000 that wait.

With --wait the command returns when PHP-FPM is idle. It fails if the pause ends before
that, so that a deploy which goes on only after success never meets a running script.`,
		Example: `  fpm-gate pause --wait --for 30s
  fpm-gate pause www --wait && systemctl restart php8.2-fpm; fpm-gate resume www`,
		Args: maybeGate,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.wait, "wait", false, "return when PHP-FPM is idle; fail if the pause ends before that")
	cmd.Flags().DurationVar(&f.limit, "for", time.Minute, "resume after this `time`, if nothing else does")
	return cmd
}

func resumeCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "resume [GATE]",
		Short: "End a pause",
		Long: `End the pause of a gate, or of all gates: the requests that wait are sent to PHP-FPM, in
their order. A gate that is not paused is left as it is.`,
		Example: `  fpm-gate resume
  fpm-gate resume www`,
		Args: maybeGate,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			var before admin.PausePage
			if err := c.do(cmd.Context(), http.MethodDelete, pausePath(args, nil), &before); err != nil {
				return failed(err)
			}
			for _, g := range before.Gates {
				text := "was not paused"
				if g.Paused {
					text = fmt.Sprintf("resumed; %s waited", count(g.Waiting, "request", "requests"))
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", g.Gate, text)
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// maybeGate refuses more than one argument.
func maybeGate(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{fmt.Errorf("one GATE, or none for all, is expected; got %d", len(args))}
	}
	return nil
}

// pausePath is the path of a request about the gate in args, or about all gates.
func pausePath(args []string, query url.Values) string {
	if query == nil {
		query = make(url.Values)
	}
	if len(args) > 0 {
		query.Set("gate", args[0])
	}
	return "/pause?" + query.Encode()
}

func (f *pauseFlags) run(cmd *cobra.Command, args []string) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	var page admin.PausePage
	query := url.Values{"for": {f.limit.String()}}
	if err := c.do(cmd.Context(), http.MethodPut, pausePath(args, query), &page); err != nil {
		return failed(err)
	}
	if f.wait {
		// Only the wait can be interrupted: a signal before ends the command as usual.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := c.awaitIdle(ctx, cmd.ErrOrStderr(), args, &page); err != nil {
			return failed(err)
		}
	}
	for _, g := range page.Gates {
		state := fmt.Sprintf("%s in PHP-FPM", count(g.Running, "request", "requests"))
		if f.wait {
			state = "PHP-FPM is idle"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: paused for at most %v; %s\n", g.Gate, f.limit, state)
	}
	return nil
}

const (
	idlePoll = 50 * time.Millisecond // between two requests to the gate for whether PHP-FPM is idle
	idleTell = 5 * time.Second       // how often the progress is shown
)

// awaitIdle waits until no request runs in PHP-FPM, and keeps page up to date.
func (c *adminClient) awaitIdle(ctx context.Context, progress io.Writer, args []string, page *admin.PausePage) error {
	told := time.Now()
	for {
		busy, err := busyGates(page)
		switch {
		case err != nil:
			return err
		case busy == "":
			return nil
		case time.Since(told) > idleTell:
			told = time.Now()
			fmt.Fprintln(progress, "waiting for PHP-FPM:", busy)
		}
		select {
		case <-time.After(idlePoll):
		case <-ctx.Done():
		}
		var next admin.PausePage
		err = c.do(ctx, http.MethodGet, pausePath(args, nil), &next)
		switch {
		case ctx.Err() != nil: // also while the gate was asked, which has left an empty page
			return fmt.Errorf(`interrupted; the pause goes on until "fpm-gate resume": %s`, busy)
		case err != nil:
			return err
		}
		*page = next
	}
}

// busyGates describes the gates whose PHP-FPM is not idle. The error says that a pause has ended. After the end of a
// pause new scripts run, so it is an error even where none is seen.
func busyGates(page *admin.PausePage) (string, error) {
	var busy []string
	if page.Previous {
		busy = append(busy, "the previous process of the gate still serves requests")
	}
	for _, g := range page.Gates {
		if g.Running > 0 {
			busy = append(busy, fmt.Sprintf("%s: %s, %d waiting", g.Gate, count(g.Running, "request", "requests"), g.Waiting))
		}
	}
	text := strings.Join(busy, "; ")
	for _, g := range page.Gates {
		if !g.Paused {
			return "", errors.New("the pause of " + g.Gate + " has ended before PHP-FPM was idle" + suffix("; ", text))
		}
	}
	return text, nil
}

// suffix returns text after a separator; "" for no text.
func suffix(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}
