package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// defaultConfig is the path of the config in the packages.
const defaultConfig = "/etc/fpm-gate/fpm-gate.hcl"

// answerTimeout is how long a running fpm-gate may take to answer.
const answerTimeout = 10 * time.Second

// adminFlags select the admin that a command sends its request to.
type adminFlags struct {
	admin, config string
}

func (f *adminFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.admin, "admin", "", "the admin's `address`: unix:/path or host:port")
	cmd.Flags().StringVarP(&f.config, "config", "c", "",
		"the config `file` with the admin's address (default "+defaultConfig+")")
	cmd.MarkFlagsMutuallyExclusive("admin", "config")
}

// adminClient sends requests to the admin of a running fpm-gate.
type adminClient struct {
	at   netaddr.Addr
	http *http.Client
}

// client returns a client of the selected admin.
func (f *adminFlags) client() (*adminClient, error) {
	at, err := f.address()
	if err != nil {
		return nil, err
	}
	return newAdminClient(at), nil
}

// An address of the config goes to the dialer as it is; the URL has only a host for the header.
func newAdminClient(at netaddr.Addr) *adminClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, at.Network, at.Address)
	}
	return &adminClient{at, &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: answerTimeout}}
}

// address returns the admin's address. It loads the config as serve does, so a file that is invalid by now does not say
// where the running gate listens: --admin does.
func (f *adminFlags) address() (netaddr.Addr, error) {
	if f.admin != "" {
		return parseAdmin(f.admin)
	}
	file := f.config
	if file == "" {
		file = defaultConfig
	}
	c, err := config.Load(file)
	switch {
	case f.config == "" && errors.Is(err, fs.ErrNotExist):
		return netaddr.Addr{}, &usageError{fmt.Errorf("--admin or --config is required: there is no %s", defaultConfig)}
	case errors.Is(err, fs.ErrPermission):
		return netaddr.Addr{}, failed(fmt.Errorf("%w; try sudo, or --admin with the admin's address", err))
	case err != nil:
		return netaddr.Addr{}, err
	case c.Admin == nil:
		return netaddr.Addr{}, fmt.Errorf(`%s has no admin block; add admin { listen = "unix:/run/fpm-gate/admin.sock" }`+
			` and reload`, file)
	}
	return c.Admin.Listen, nil
}

// parseAdmin parses an address as written in the config.
func parseAdmin(s string) (netaddr.Addr, error) {
	path, unix := strings.CutPrefix(s, "unix:")
	if unix && strings.HasPrefix(path, "/") {
		return netaddr.Addr{Network: "unix", Address: path}, nil
	}
	if host, port, err := net.SplitHostPort(s); !unix && err == nil && host != "" && port != "" {
		return netaddr.Addr{Network: "tcp", Address: s}, nil
	}
	return netaddr.Addr{}, &usageError{fmt.Errorf(`--admin must be "unix:/path" or "host:port"; got %q`, s)}
}

// do sends a request and decodes the response into page.
func (c *adminClient) do(ctx context.Context, method, path string, page any) error {
	resp, err := c.send(ctx, method, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(page); err != nil {
		return fmt.Errorf("unexpected response from %s; is it fpm-gate? %w", c.at, err)
	}
	return nil
}

// send sends a request. The caller closes the body of the response.
func (c *adminClient) send(ctx context.Context, method, path string) (*http.Response, error) {
	// On TCP the admin refuses a Host that is not its own. On a unix socket any will do.
	host := "fpm-gate"
	if c.at.Network == "tcp" {
		host = c.at.Address
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.noAnswer(err)
	}
	return resp, nil
}

// noAnswer adds what an operator can do to the error of a request that got no response.
func (c *adminClient) noAnswer(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to connect to %s: try sudo, or check the socket's mode", c.at)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens on %s: start fpm-gate, or reload it if the admin block is new", c.at)
	}
	// Without the URL that http.Client adds, which no operator has asked for.
	var step *net.OpError
	if errors.As(err, &step) {
		err = step
	}
	return fmt.Errorf("no answer from %s: %w", c.at, err)
}

// refusal returns the error in a response that is not 200.
func refusal(resp *http.Response) error {
	var page admin.ErrorPage
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&page); err != nil || page.Error == "" {
		return fmt.Errorf("unexpected status %s", resp.Status)
	}
	if len(page.Keys) > 0 {
		page.Error += ":\n  " + strings.Join(page.Keys, "\n  ")
	}
	return errors.New(page.Error)
}
