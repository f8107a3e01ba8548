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
)

// defaultConfig is where the package puts the config.
const defaultConfig = "/etc/fpm-gate/fpm-gate.hcl"

// answerTimeout is how long a gate may take to answer an operator.
const answerTimeout = 10 * time.Second

// operatorFlags say whose admin a command asks.
type operatorFlags struct {
	admin, config string
}

func (f *operatorFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.admin, "admin", "", "where its admin listens: unix:/path or host:port (`address`)")
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "or the config `file` that says so (default "+defaultConfig+")")
	cmd.MarkFlagsMutuallyExclusive("admin", "config")
}

// operator asks a running fpm-gate.
type operator struct {
	at     config.Address
	client *http.Client
}

// operator finds whom to ask.
func (f *operatorFlags) operator() (*operator, error) {
	at, err := f.address()
	if err != nil {
		return nil, err
	}
	return newOperator(at), nil
}

func newOperator(at config.Address) *operator {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, at.Network, at.Address)
	}
	return &operator{at, &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: answerTimeout}}
}

func (f *operatorFlags) address() (config.Address, error) {
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
		return config.Address{}, &usageError{fmt.Errorf("say whom to ask: --admin ADDRESS or --config FILE; there is no %s", defaultConfig)}
	case errors.Is(err, fs.ErrPermission):
		return config.Address{}, failed(fmt.Errorf("%w; try sudo, or --admin with its address", err))
	case err != nil:
		return config.Address{}, err
	case c.Admin == nil:
		return config.Address{}, fmt.Errorf(`%s has no admin block, so there is nobody to ask; add admin { listen = "unix:/run/fpm-gate/admin.sock" } and reload`, file)
	}
	return c.Admin.Listen, nil
}

// parseAdmin reads an address as the config has it.
func parseAdmin(s string) (config.Address, error) {
	path, unix := strings.CutPrefix(s, "unix:")
	if unix && strings.HasPrefix(path, "/") {
		return config.Address{Network: "unix", Address: path}, nil
	}
	if host, port, err := net.SplitHostPort(s); !unix && err == nil && host != "" && port != "" {
		return config.Address{Network: "tcp", Address: s}, nil
	}
	return config.Address{}, &usageError{fmt.Errorf(`--admin must be "unix:/path" or "host:port"; got %q`, s)}
}

// ask asks for a path and decodes the answer into page.
func (o *operator) ask(ctx context.Context, method, path string, page any) error {
	host := "fpm-gate"
	if o.at.Network == "tcp" {
		host = o.at.Address
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return err
	}
	resp, err := o.client.Do(r)
	if err != nil {
		return o.noAnswer(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(page); err != nil {
		return fmt.Errorf("the answer of %s is not that of fpm-gate: %w", o.at, err)
	}
	return nil
}

// noAnswer says what an operator can do where nobody answered.
func (o *operator) noAnswer(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to connect to %s: its mode says who may; try sudo", o.at)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens on %s: is fpm-gate running, and has it been reloaded since its admin block was written?", o.at)
	}
	var step *net.OpError
	if errors.As(err, &step) {
		err = step
	}
	return fmt.Errorf("no answer from %s: %w", o.at, err)
}

// refusal is what an answer says that is not what was asked for.
func refusal(resp *http.Response) error {
	var page admin.ErrorPage
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&page); err != nil || page.Error == "" {
		return fmt.Errorf("got status %s", resp.Status)
	}
	if len(page.Keys) > 0 {
		page.Error += ":\n  " + strings.Join(page.Keys, "\n  ")
	}
	return errors.New(page.Error)
}
