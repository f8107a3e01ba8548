package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/config"
)

// judge returns everything that keeps this process from serving a config although the file is valid, as problems:
// folders and owners of sockets, addresses that are not this host's, TLS files. check and serve both call it, so that
// they agree. It leaves nothing behind and does not disturb what is being served. confineTo calls it, too, to see
// whether the rules would leave enough.
func judge(c *config.Config) error {
	var errs problems
	if c.Memcached != nil { // reads the TLS files; whether memcached can be reached is no matter of the config
		if _, err := storeOptions(c.Memcached); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Admin != nil {
		if err := judgeListen(asGate(c.Admin)); err != nil {
			errs = append(errs, fmt.Errorf("admin: listen on %s: %w", c.Admin.Listen, err))
		}
	}
	for _, g := range c.Gates { // on all of them: an operator wants to see all problems at once
		if err := judgeListen(g); err != nil {
			errs = append(errs, fmt.Errorf("gate %q: listen on %s: %w", g.Name, g.Listen, err))
		}
	}
	if errs == nil {
		return nil
	}
	return errs
}

// judgeListen returns what keeps this process from listening on the address of g. Sockets from systemd cannot be
// judged: systemd passes them only when it starts the service.
func judgeListen(g *config.Gate) error {
	switch g.Listen.Network {
	case "unix":
		return judgeUnix(g)
	case "tcp":
		return judgeTCP(g.Listen.Address)
	}
	return nil
}

// judgeUnix creates a socket as listenUnix would, in the same folder, and removes it.
func judgeUnix(g *config.Gate) error {
	path := g.Listen.Address
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return errNoSocketFile
	}
	if systemdListens("/proc", path) {
		return errSystemdListens
	}
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); err != nil {
		return fmt.Errorf("folder of the socket: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("folder of the socket: %s is a file", folder)
	}
	// The trial shows the rights to the folder and to change the owner, which no look at modes could.
	made := filepath.Join(folder, fmt.Sprintf(".fpm-gate-check.%d", os.Getpid()))
	// There is no room for the trial's name, and a trial in the socket's own place would disturb it.
	if len(made) > maxSocketPath {
		_, _, err := owner(g)
		return err
	}
	l, err := makeUnix(g, made)
	if err != nil {
		return fmt.Errorf("create a socket in %s: %w", folder, asUser(err))
	}
	return errors.Join(l.Close(), os.Remove(made))
}

// asUser removes the path of the trial socket from an error. It adds the user id to a permission error, because check
// may run as another user than serve.
func asUser(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err
	} else if op := (*fs.PathError)(nil); errors.As(err, &op) {
		err = fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (as user %d)", err, os.Geteuid())
	}
	return err
}

// judgeTCP binds a socket to the address but does not listen, so that a web server that connects is refused as before.
// An address in use is no error: the gate whose config is checked may be the one that uses it.
func judgeTCP(address string) error {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	var to unix.Sockaddr
	family := unix.AF_INET6
	if ip := a.IP.To4(); ip != nil {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}
	} else {
		to = &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP.To16()), ZoneId: zoneOf(a.Zone)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // as net.Listen sets it
	if err := unix.Bind(fd, to); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// zoneOf returns the index of a network interface, 0 if there is none.
func zoneOf(name string) uint32 {
	if i, err := net.InterfaceByName(name); err == nil {
		return uint32(i.Index)
	}
	return 0
}
