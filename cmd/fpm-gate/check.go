package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpfpm"
)

func checkCommand() *cobra.Command {
	var file string
	var probe, fileOnly bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a config, and with --probe what it points to",
		Long: `Check a config as serve does. It shows all errors of the file at once, each with its
place. Then it looks for what would keep this user from serving the config on this
machine: folders and owners of sockets, TLS files. Use --file-only on a machine that
will not serve the config.

With --probe it also connects to each PHP-FPM, and requests ping_path and status_path if
they are set; and it checks each memcached that keeps locks: its latency, its free
memory, and whether items live as long as requested, which takes four seconds. It
compares handler, save_path and cookies with PHP-FPM's settings, as far as they can be
read, with the session files, and with what a running gate has seen.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return &usageError{errors.New("--config is required")}
			}
			return check(cmd.OutOrStdout(), file, fileOnly, probe)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the config `file`")
	_ = cmd.MarkFlagFilename("config", "hcl")
	cmd.Flags().BoolVar(&fileOnly, "file-only", false, "check only the file, not this machine")
	cmd.Flags().BoolVar(&probe, "probe", false, "also check PHP-FPM and memcached")
	cmd.MarkFlagsMutuallyExclusive("file-only", "probe")
	return cmd
}

// check writes what it finds to w, and warnings about the file to stderr, as serve logs them. Its error decides the
// exit code: 2 if the file is invalid, 1 if this machine cannot serve it or a probe failed.
func check(w io.Writer, file string, fileOnly, probe bool) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	if len(c.Warnings.Lines()) > 0 {
		_ = c.Warnings.Write(os.Stderr, terminalWidth, isTerminal(os.Stderr))
	}
	for _, note := range checkWatching(c) {
		fmt.Fprintln(w, "note:", note)
	}
	for _, g := range c.Gates {
		var upstreams []string
		for _, a := range g.Upstream.Addresses {
			upstreams = append(upstreams, a.String())
		}
		fmt.Fprintf(w, "gate %q: %s to %s\n", g.Name, g.Listen, strings.Join(upstreams, " "))
		if s := &g.Session; s.Application != "" {
			fmt.Fprintf(w, "gate %q: application = %q comes to %s\n", g.Name, s.Application, applied(g))
		}
	}
	var unserved error
	if !fileOnly {
		unserved = judgeFile(c, file)
	}
	if unserved == nil {
		fmt.Fprintf(w, "%s: configuration is valid\n", file)
	}
	if !probe {
		return failed(unserved)
	}
	probeSessions(w, c)
	probeWorkers(w, c)
	return failed(errors.Join(unserved, probeUpstreams(w, c), probeStore(w, c)))
}

// judgeFile returns what keeps this machine from serving a file: several problems on a line each.
func judgeFile(c *config.Config, file string) error {
	err := judge(c)
	if err == nil {
		return nil
	}
	text := " " + err.Error()
	if all := (problems)(nil); errors.As(err, &all) && len(all) > 1 {
		text = "\n  " + all.list("\n  ")
	}
	return fmt.Errorf("%s is valid, but cannot be served on this machine:%s", file, text)
}

// applied returns the keys that an application sets, with the values that they have in g. Of keys it shows how many
// there are.
func applied(g *config.Gate) string {
	s := &g.Session
	keys := []string{fmt.Sprintf("cookies = [%s]", quotedList(s.Cookies))}
	if s.IDPattern != nil {
		keys = append(keys, fmt.Sprintf("id_pattern = %q", s.IDPattern))
	}
	if s.Format != config.FormatPlain {
		keys = append(keys, fmt.Sprintf("format = %q with %d keys", s.Format, len(s.Keys)))
	}
	if s.LocksGiven {
		keys = append(keys, fmt.Sprintf("locks = %t", s.Locks))
	}
	keys = append(keys, fmt.Sprintf("release_on = %q", g.Lock.ReleaseOn))
	return strings.Join(keys, ", ")
}

// quotedList writes words as the elements of a list in the config.
func quotedList(words []string) string {
	var quoted []string
	for _, w := range words {
		quoted = append(quoted, strconv.Quote(w))
	}
	return strings.Join(quoted, ", ")
}

// probeUpstreams probes each upstream address of each gate, and writes a line for each.
func probeUpstreams(w io.Writer, c *config.Config) error {
	unfit := 0
	for _, g := range c.Gates {
		for _, a := range g.Upstream.Addresses {
			found, err := probeUpstream(g.Upstream, a)
			if err != nil {
				unfit++
				found = err.Error()
			}
			fmt.Fprintf(w, "gate %q: upstream %s: %s\n", g.Name, a, found)
		}
	}
	if unfit > 0 {
		return fmt.Errorf("%s failed the probe", count(unfit, "upstream address", "upstream addresses"))
	}
	return nil
}

// probeUpstream returns what one PHP-FPM answers.
func probeUpstream(u config.Upstream, a netaddr.Addr) (string, error) {
	// Connecting shows only that PHP-FPM listens. The ping shows that a worker answers.
	start := time.Now()
	nc, err := net.DialTimeout(a.Network, a.Address, u.ConnectTimeout)
	if err != nil {
		return "", err
	}
	_ = nc.Close()
	found := []string{"connects"}
	if u.PingPath != "" {
		if err := phpfpm.Ping(context.Background(), a, u.PingPath, u.ProbeInterval); err != nil {
			return "", err
		}
		found = append(found, fmt.Sprintf("answers its ping after %.1f ms", time.Since(start).Seconds()*1000))
	}
	if u.StatusPath != "" {
		s, err := phpfpm.QueryStatus(context.Background(), a, u.StatusPath, u.ProbeInterval)
		if err != nil {
			return "", err
		}
		found = append(found, fmt.Sprintf("pool %q has %d workers (%s), %d of them busy",
			s.Pool, s.TotalProcesses, s.ProcessManager, s.ActiveProcesses))
		if s.KnowsBacklog() {
			found = append(found, fmt.Sprintf("%d requests in its backlog", s.ListenQueue))
		}
	}
	return strings.Join(found, ", "), nil
}

// probeStore probes each memcached that keeps locks, and writes a line for each.
func probeStore(w io.Writer, c *config.Config) error {
	if c.Memcached == nil {
		return nil
	}
	o, err := storeOptions(c.Memcached)
	if err != nil { // which judge has reported
		fmt.Fprintln(w, "memcached: not probed")
		return nil
	}
	reports, err := memcachelock.Probe(context.Background(), o)
	if err != nil {
		return fmt.Errorf("memcached: %w", err)
	}
	unfit := 0
	for _, r := range reports {
		if r.Err != nil {
			unfit++
			fmt.Fprintf(w, "memcached %s: %v\n", r.Server, r.Err)
			continue
		}
		fmt.Fprintf(w, "memcached %s: %s\n", r.Server, storeReport(r))
		for _, warning := range r.Warnings {
			fmt.Fprintf(w, "memcached %s: warning: %s\n", r.Server, warning)
		}
	}
	if unfit > 0 {
		return fmt.Errorf("%s failed the probe", count(unfit, "memcached server", "memcached servers"))
	}
	return nil
}

// storeReport describes one memcached.
func storeReport(r memcachelock.Report) string {
	const mebibyte = 1 << 20
	return fmt.Sprintf("version %s, up for %s, answers in %.2f ms, %d of %d MiB used, %d evictions,"+
		" an item with a TTL of 3 s lived %.1f s", r.Version, r.Uptime, r.Answer.Seconds()*1000,
		r.Used/mebibyte, r.Memory/mebibyte, r.Evictions, r.Lived.Seconds())
}
