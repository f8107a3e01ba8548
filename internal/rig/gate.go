package rig

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
)

// Gate is a running fpm-gate.
type Gate struct {
	*Server
	// Config is the configuration of its last start or reload.
	Config string
}

// GateOptions configure a gate: by Upstream and what surrounds it, or by Config alone.
type GateOptions struct {
	Name   string
	Binary string // the built program

	// Upstream makes a gate block "www" that passes to PHP-FPM there.
	Upstream Addr
	Listen   Addr   // of that block; Unix if zero
	Settings string // more of that block, such as `lock { max_wait = "1s" }`

	// Config is the rest of the configuration, and all of it without Upstream.
	Config string
	Args   []string // more arguments of serve
	Env    []string
	// Unprivileged: where the rig is root's, the gate runs as user 65534, which must be able to run the binary. It may
	// open every file, and has no right to look at other processes.
	Unprivileged bool
}

// Gate starts a gate and waits until it accepts on all addresses that its configuration listens on, including its
// admin's.
func (r *Rig) Gate(o GateOptions) (*Gate, error) {
	if o.Binary == "" {
		return nil, errors.New("start fpm-gate: no binary is given")
	}
	g := &Gate{Server: &Server{Name: o.Name}}
	if err := r.add("fpm-gate", g.Server); err != nil {
		return nil, err
	}
	if err := g.configure(r, o); err != nil {
		return nil, fmt.Errorf("configure %s: %w", g.Name, err)
	}
	args := append([]string{"serve", "--config", g.ConfigFile()}, o.Args...)
	g.cmd = command{path: o.Binary, args: args, env: o.Env, unprivileged: o.Unprivileged}
	return g, g.Start()
}

func (g *Gate) configure(r *Rig, o GateOptions) error {
	config := o.Config
	if o.Upstream.Address != "" {
		listen, err := r.choose(o.Listen, Unix, g.Name)
		if err != nil {
			return err
		}
		config = gateBlock(listen, o) + config
	}
	if err := g.write(config); err != nil {
		return err
	}
	if g.listen = listenAddrs(config); len(g.listen) == 0 {
		return errors.New("the configuration listens nowhere")
	}
	g.Addr = g.listen[0]
	return nil
}

func gateBlock(listen Addr, o GateOptions) string {
	return fmt.Sprintf(`gate "www" {
  listen = %q
  upstream { address = %q }
  %s
}
`, listen, o.Upstream, o.Settings)
}

var listenLine = regexp.MustCompile(`(?m)^[^#/\n]*\blisten\s*=\s*"([^"]+)"`)

// listenAddrs finds the addresses of a configuration, knowing only one line of its language. It ignores sockets from
// systemd, which the rig does not wait for.
func listenAddrs(config string) []Addr {
	var addrs []Addr
	for _, m := range listenLine.FindAllStringSubmatch(config, -1) {
		if !strings.HasPrefix(m[1], "systemd:") {
			addrs = append(addrs, ParseAddr(m[1]))
		}
	}
	return addrs
}

// ConfigFile returns the path of the gate's configuration.
func (g *Gate) ConfigFile() string { return g.file("fpm-gate.hcl") }

// Reload replaces the configuration and sends SIGHUP. It does not wait for the reload; the gate logs it.
func (g *Gate) Reload(config string) error {
	if err := g.write(config); err != nil {
		return fmt.Errorf("reload %s: %w", g.Name, err)
	}
	return g.Signal(syscall.SIGHUP)
}

func (g *Gate) write(config string) error {
	g.Config = config
	return os.WriteFile(g.ConfigFile(), []byte(config), 0o644)
}
