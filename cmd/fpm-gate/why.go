package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
)

func whyCommand() *cobra.Command {
	var f adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why KEY",
		Short: "Show what the script that holds a lock does at this moment",
		Long: `Show what the script that holds a lock does at this moment: its request and its worker,
whether PHP has the session open and where it was started, and what the worker waits for.
KEY is the lock's key or a prefix of it, as "fpm-gate locks" and the log show it.`,
		Example: "  fpm-gate why af3cc79d",
		Args:    oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			var answer json.RawMessage
			if err := c.do(cmd.Context(), http.MethodGet, "/locks/"+url.PathEscape(args[0])+"/why", &answer); err != nil {
				return failed(err)
			}
			return failed(showWhy(cmd.OutOrStdout(), answer, asJSON))
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything as JSON")
	return cmd
}

// oneKey takes one argument, the key of a lock.
func oneKey(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{errors.New(`KEY is required; "fpm-gate locks" lists them`)}
	}
	return nil
}

func showWhy(w io.Writer, answer json.RawMessage, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(w, "%s\n", answer)
		return err
	}
	var why admin.Why
	if err := json.Unmarshal(answer, &why); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("lock", "%s, held for %s", why.Key, age(why.HeldMS))
	line("request", "%s", describe(why.Holder))
	line("script", "%s", why.Holder.Script)
	if why.Worker == nil {
		line("worker", "cannot be looked at: %s", why.Problem)
	} else {
		describeWorker(line, why.Worker)
	}
	waiting := "no request"
	if n := len(why.Waiters); n > 0 {
		waiting = fmt.Sprintf("%d, the first for %s", n, age(why.Waiters[0].WaitedMS))
	}
	line("waiting", "%s", waiting)
	return t.Flush()
}

// describeWorker writes what is seen of a worker.
func describeWorker(line func(name, format string, args ...any), w *admin.Worker) {
	line("worker", "process %d, PHP %s, %s, CPU %s", w.PID, cmp.Or(w.PHP, "of an unknown version"), w.State, age(w.CPUMS))
	session := map[string]string{"active": "open", "none": "not open"}[w.Session]
	session = fmt.Sprintf("%s, handler %s", cmp.Or(session, w.Session), cmp.Or(w.Handler, "unknown"))
	if w.File != "" {
		session += fmt.Sprintf(", started in %s:%d", w.File, w.Line)
	}
	line("session", "%s", session)
	switch {
	case w.Syscall != "" && w.Target != "":
		line("waits", "in %s for %s", w.Syscall, w.Target)
	case w.Syscall != "":
		line("waits", "in %s", w.Syscall)
	}
}
