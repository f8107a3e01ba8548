package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
)

// locksFlags are the flags of locks.
type locksFlags struct {
	adminFlags
	json, watch bool
	interval    time.Duration
}

func locksCommand() *cobra.Command {
	var f locksFlags
	cmd := &cobra.Command{
		Use:   "locks",
		Short: "Show which scripts hold sessions, and how many requests wait for them",
		Long: `Show the sessions that are held or waited for on this host: which script holds each
session and for how long, how many requests wait for it, and the longest wait.`,
		Example: `  fpm-gate locks
  fpm-gate locks --watch
  fpm-gate locks --json | jq '.locks[] | select(.held_ms > 5000)'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			if f.interval < 100*time.Millisecond {
				return &usageError{fmt.Errorf("--interval must be at least 100ms; got %s", f.interval)}
			}
			return failed(f.show(cmd.Context(), c, cmd.OutOrStdout()))
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print everything as JSON")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "refresh until interrupted")
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "time between refreshes, with --watch")
	return cmd
}

// show prints the locks once, or with --watch until a signal ends it.
func (f *locksFlags) show(ctx context.Context, c *adminClient, w io.Writer) error {
	if !f.watch {
		return f.showOnce(ctx, c, w)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	for {
		var screen bytes.Buffer // written at once, so that the screen does not flicker
		err := f.showOnce(ctx, c, &screen)
		if ctx.Err() != nil { // Ctrl-C is how --watch ends, also in the middle of a request
			return nil
		}
		if err != nil {
			return err
		}
		if !f.json && isTerminal(os.Stdout) {
			_, _ = io.WriteString(w, "\x1b[H\x1b[2J") // clear the screen and start at its top
		}
		if _, err := screen.WriteTo(w); err != nil {
			return err
		}
		select {
		case <-time.After(f.interval):
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *locksFlags) showOnce(ctx context.Context, c *adminClient, w io.Writer) error {
	if f.json {
		var page json.RawMessage // as the admin has sent it, with fields that this version may not know
		if err := c.do(ctx, http.MethodGet, "/locks", &page); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "%s\n", page)
		return err
	}
	var page admin.LocksPage
	if err := c.do(ctx, http.MethodGet, "/locks", &page); err != nil {
		return err
	}
	if f.watch {
		at, _ := time.Parse(time.RFC3339Nano, page.At)
		fmt.Fprintf(w, "%s  %s\n", page.Host, at.Local().Format(time.TimeOnly))
	}
	if err := lockTable(w, page.Locks); err != nil || page.Pause == nil {
		return err
	}
	for _, g := range page.Pause.Gates {
		until, _ := time.Parse(time.RFC3339Nano, g.Until)
		fmt.Fprintf(w, "%s is paused until %s; %s, %d in PHP-FPM\n", printable(g.Gate),
			until.Local().Format(time.TimeOnly), count(g.Waiting, "request waits", "requests wait"), g.Running)
	}
	return nil
}

// lockTable writes one line per lock, and the totals.
func lockTable(w io.Writer, locks []admin.Lock) error {
	held, waiting := 0, 0
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, l := range locks {
		if i == 0 {
			fmt.Fprintln(t, "KEY\tGATE\tHELD\tWAITERS\tLONGEST WAIT\tREQUEST\tSCRIPT")
		}
		if l.Held {
			held++
		}
		waiting += len(l.Waiters)
		longest := "-"
		if len(l.Waiters) > 0 {
			longest = age(l.Waiters[0].WaitedMS)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n",
			l.Key[:8], gateAndRoute(l), heldFor(l), len(l.Waiters), longest, requestText(l), scriptText(l))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s, %s\n",
		count(held, "lock is held", "locks are held"), count(waiting, "request waits", "requests wait"))
	return err
}

func gateAndRoute(l admin.Lock) string {
	if l.Holder.Route != "" {
		return printable(l.Gate + "/" + l.Holder.Route)
	}
	return printable(l.Gate)
}

// heldFor returns the age of a hold. Of one on another host, that host's clock has the beginning.
func heldFor(l admin.Lock) string {
	switch {
	case l.Held:
		return age(l.HeldMS)
	case l.Holder.Host != "":
		return age(l.HeldMS) + " on " + printable(l.Holder.Host)
	}
	return "free"
}

// Widths of columns whose text can have any length.
const (
	requestWidth = 48
	scriptWidth  = 56
)

// requestText returns the holder's method and path, cut to the width of the column. Visitors choose paths, so it is
// printable.
func requestText(l admin.Lock) string {
	if !l.Held {
		return "-"
	}
	text := []rune(printable(l.Holder.Method + " " + l.Holder.Path))
	if len(text) > requestWidth {
		text = append(text[:requestWidth-1], '…')
	}
	return string(text)
}

func scriptText(l admin.Lock) string {
	if l.Holder.Script == "" {
		return "-"
	}
	text := []rune(printable(l.Holder.Script))
	if cut := len(text) - scriptWidth; cut > 0 { // the end of a path says more than its start
		text = append([]rune{'…'}, text[cut+1:]...)
	}
	return string(text)
}
