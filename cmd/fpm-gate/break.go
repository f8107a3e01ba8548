package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
)

func breakCommand() *cobra.Command {
	var f adminFlags
	cmd := &cobra.Command{
		Use:   "break KEY",
		Short: "Break a lock, so that the next waiter gets it",
		Long: `Break a lock. KEY is the lock's key or a prefix of it, as "fpm-gate locks" and the log
show it. The script keeps running without the lock, concurrently with the next one of
its session, and each may overwrite what the other writes. Break a lock that is held on
another host on that host.`,
		Example: "  fpm-gate break af3cc79d",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{errors.New(`KEY is required; "fpm-gate locks" lists them`)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			var l admin.Lock
			if err := c.do(cmd.Context(), http.MethodDelete, "/locks/"+url.PathEscape(args[0]), &l); err != nil {
				return failed(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "broken: %s, held for %s by %s\n",
				l.Key, age(l.HeldMS), describe(l.Holder))
			return failed(err)
		},
	}
	f.add(cmd)
	return cmd
}
