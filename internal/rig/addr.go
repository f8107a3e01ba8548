package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// Addr is where a server listens.
type Addr = netaddr.Addr

// Addresses for the rig to choose: a Unix socket in its folder, or a port on loopback. A zero Addr is the one that the
// server's kind prefers.
var (
	Unix = Addr{Network: "unix"}
	TCP  = Addr{Network: "tcp"}
)

// maxSocketFolder leaves room for a socket's name in the 107 bytes that Linux has for the path of a Unix socket.
const maxSocketFolder = 80

// ParseAddr parses an address as written in the gate's configuration.
func ParseAddr(s string) Addr {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return Addr{Network: "unix", Address: path}
	}
	return Addr{Network: "tcp", Address: s}
}

// Reserve returns an address of the network unix or tcp that is not used otherwise until Close. name is part of a Unix
// socket's name.
func (r *Rig) Reserve(network, name string) (Addr, error) {
	switch network {
	case "unix":
		r.mu.Lock()
		defer r.mu.Unlock()
		r.names[name+".sock"]++
		if n := r.names[name+".sock"]; n > 1 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		return Addr{Network: "unix", Address: filepath.Join(r.sockets, name+".sock")}, nil
	case "tcp":
		return r.reservePort()
	}
	return Addr{}, fmt.Errorf("reserve an address: the network must be unix or tcp; got %q", network)
}

// choose returns a, or a reserved address for what a leaves open.
func (r *Rig) choose(a, preferred Addr, name string) (Addr, error) {
	if a.Network == "" {
		a = preferred
	}
	if a.Address != "" {
		return a, nil
	}
	return r.Reserve(a.Network, name)
}

// reservation is a bound socket that never listens.
type reservation struct{ fd int }

// reservePort binds a port and keeps it bound. A server can still listen on it, since both sockets have SO_REUSEADDR
// and only one listens; but the kernel gives the port to no outgoing connection and to no other rig, even while the
// server is stopped, and a connection attempt is refused then.
func (r *Rig) reservePort() (Addr, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Addr{}, os.NewSyscallError("socket", err)
	}
	port, err := bindLoopback(fd)
	if err != nil {
		return Addr{}, errors.Join(fmt.Errorf("reserve a port: %w", err), syscall.Close(fd))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved = append(r.reserved, reservation{fd})
	return Addr{Network: "tcp", Address: fmt.Sprintf("127.0.0.1:%d", port)}, nil
}

func bindLoopback(fd int) (port int, err error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	loopback := &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := syscall.Bind(fd, loopback); err != nil {
		return 0, os.NewSyscallError("bind", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, os.NewSyscallError("getsockname", err)
	}
	return name.(*syscall.SockaddrInet4).Port, nil
}

func (r *Rig) releasePorts() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, res := range r.reserved {
		errs = append(errs, os.NewSyscallError("close", syscall.Close(res.fd)))
	}
	r.reserved = nil
	return errors.Join(errs...)
}
