package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
)

func breakCommand() *cobra.Command {
	var f operatorFlags
	cmd := &cobra.Command{
		Use:   "break KEY",
		Short: "Break a lock: its holder goes on without it, and the next waiter gets it",
		Long: `Break a lock. KEY is its name, or the begin of it, as "fpm-gate locks" and the log show
it. The script that holds the lock is not ended: it goes on without it, beside the next
one of its session, which may overwrite what it writes. A lock that is held on another
host is broken there.`,
		Example: "  fpm-gate break af3cc79d",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{errors.New("say which lock: fpm-gate break KEY; fpm-gate locks shows them")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.operator()
			if err != nil {
				return err
			}
			var l admin.Lock
			if err := o.ask(cmd.Context(), http.MethodDelete, "/locks/"+url.PathEscape(args[0]), &l); err != nil {
				return failed(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "broken: %s, held for %s by %s\n", l.Key, age(l.HeldMS), describe(l.Holder))
			return failed(err)
		},
	}
	f.add(cmd)
	return cmd
}

// describe says in a line who holds a lock.
func describe(r admin.Request) string {
	return printable(r.Method + " " + r.Path + " (" + r.Script + ")")
}

// age is a time in milliseconds as people read it.
func age(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d < time.Second:
		return d.String()
	case d < time.Minute:
		return d.Truncate(100 * time.Millisecond).String()
	}
	return d.Truncate(time.Second).String()
}
