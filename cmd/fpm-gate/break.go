package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/gate"
)

func breakCommand() *cobra.Command {
	var f adminFlags
	var terminate bool
	cmd := &cobra.Command{
		Use:   "break KEY",
		Short: "Break a lock, so that the next waiter gets it",
		Long: `Break a lock. KEY is the lock's key or a prefix of it, as "fpm-gate locks" and the log
show it. The script keeps running without the lock, concurrently with the next one of
its session, and each may overwrite what the other writes. Break a lock that is held on
another host on that host.

With --terminate the script is ended first, by PHP's own time limit, and if that does not
help by SIGTERM: it gives PHP's own lock back too. The lock is free at most two seconds
later. The answer says which of the two it was, or why it was none. The gate needs the
right to look at PHP-FPM's workers.`,
		Example: `  fpm-gate break af3cc79d
  fpm-gate break af3cc79d --terminate`,
		Args: oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			var l admin.Terminated
			path, done := "/locks/"+url.PathEscape(args[0]), "broken"
			if terminate {
				path += "?terminate=true"
			}
			if err := c.do(cmd.Context(), http.MethodDelete, path, &l); err != nil {
				return failed(err)
			}
			if terminate {
				done = "its script has ended, " + endings[l.EndedBy]
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, held for %s by %s\n",
				done, l.Key, age(l.HeldMS), describe(l.Holder))
			return failed(err)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&terminate, "terminate", false, "end the script that holds the lock")
	return cmd
}

// endings are what an operator reads of how a script has ended.
var endings = map[gate.Ending]string{
	gate.EndedByLimit:  "by PHP's time limit",
	gate.EndedByTerm:   "with its worker (SIGTERM)",
	gate.EndedByItself: "by itself",
}
