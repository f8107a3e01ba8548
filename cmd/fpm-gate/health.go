package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
)

func healthCommand() *cobra.Command {
	var f adminFlags
	var live bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Report whether a running gate is ready, for probes",
		Long: `Report whether a running gate is ready: it listens, PHP-FPM can be reached and the lock
store answers. Exits with 0 if so, otherwise with 1 and the reasons. With --live it only
reports whether the process answers. For probes of containers, which have no curl.`,
		Example: `  fpm-gate health
  fpm-gate health --live --admin unix:/run/fpm-gate/admin.sock`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			check := c.ready
			if live {
				check = c.live
			}
			if err := check(cmd.Context()); err != nil {
				return failed(err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return failed(err)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&live, "live", false, "only report whether the process answers")
	return cmd
}

// live returns an error unless the process answers.
func (c *adminClient) live(ctx context.Context) error {
	resp, err := c.send(ctx, http.MethodGet, "/healthz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	return nil
}

// ready returns an error with the reasons why new requests would not be served.
func (c *adminClient) ready(ctx context.Context) error {
	resp, err := c.send(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		var page admin.ReadinessPage
		if err := json.NewDecoder(resp.Body).Decode(&page); err == nil && len(page.Reasons) > 0 {
			return errors.New("not ready: " + strings.Join(page.Reasons, "; "))
		}
	}
	return refusal(resp)
}
