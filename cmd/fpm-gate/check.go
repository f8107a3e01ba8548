package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/fcgi"
)

func checkCommand() *cobra.Command {
	var file string
	var probe bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a config, and with --probe what it points to",
		Long: `Check a config. All its errors are shown at once, each with its place in the file.
With --probe each PHP-FPM is asked too: whether it can be reached, and where ping_path
and status_path are set, what it answers there.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return &usageError{errors.New("say which config: --config FILE")}
			}
			return check(cmd.OutOrStdout(), file, probe)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the config `file`")
	cmd.Flags().BoolVar(&probe, "probe", false, "also ask PHP-FPM")
	return cmd
}

func check(w io.Writer, file string, probe bool) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	if len(c.Warnings.Lines()) > 0 {
		_ = c.Warnings.Write(os.Stderr, terminalWidth, isTerminal(os.Stderr))
	}
	notes, err := missing(c)
	if err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(w, "note:", note)
	}
	for _, g := range c.Gates {
		fmt.Fprintf(w, "gate %q: %s to %s\n", g.Name, g.Listen, strings.Trim(fmt.Sprint(upstreamAddrs(g)), "[]"))
	}
	fmt.Fprintf(w, "%s is right\n", file)
	if !probe {
		return nil
	}
	return failed(probeAll(w, c))
}

// probeAll asks each upstream address of each gate, and tells what it finds.
func probeAll(w io.Writer, c *config.Config) error {
	unfit := 0
	for _, g := range c.Gates {
		for _, a := range upstreamAddrs(g) {
			found, err := probeUpstream(g.Upstream, a)
			if err != nil {
				unfit++
				found = err.Error()
			}
			fmt.Fprintf(w, "gate %q: upstream %s: %s\n", g.Name, a, found)
		}
	}
	if unfit > 0 {
		return fmt.Errorf("%d upstream addresses are not fit to serve", unfit)
	}
	return nil
}

// probeUpstream says what one PHP-FPM answers.
func probeUpstream(u config.Upstream, a fcgi.Addr) (string, error) {
	start := time.Now()
	nc, err := net.DialTimeout(a.Network, a.Address, u.ConnectTimeout)
	if err != nil {
		return "", err
	}
	_ = nc.Close()
	found := []string{"connects"}
	if u.PingPath != "" {
		if err := fcgi.Ping(a, u.PingPath, u.ProbeInterval); err != nil {
			return "", err
		}
		found = append(found, fmt.Sprintf("answers its ping after %.1f ms", time.Since(start).Seconds()*1000))
	}
	if u.StatusPath != "" {
		s, err := fcgi.QueryStatus(a, u.StatusPath, u.ProbeInterval)
		if err != nil {
			return "", err
		}
		found = append(found, fmt.Sprintf("pool %q has %d workers (%s), %d of them busy, %d requests in its backlog",
			s.Pool, s.TotalProcesses, s.ProcessManager, s.ActiveProcesses, s.ListenQueue))
	}
	return strings.Join(found, ", "), nil
}
