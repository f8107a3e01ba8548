// Package netaddr has the address of a server, or of a socket to listen on, as a value.
//
// Its text is the one of the config, which config parses and judges.
package netaddr

import (
	"net"
	"net/netip"
)

// Addr is where to listen or what to dial. Equal addresses compare equal with ==, so it can be the key of a map.
type Addr struct {
	Network string // unix, tcp, or systemd in the config of a listener
	Address string // an absolute path, host:port, or the name of a socket unit's file descriptor
}

// String returns the address as written in a config, "" for the zero Addr.
func (a Addr) String() string {
	if a.Network == "unix" || a.Network == "systemd" {
		return a.Network + ":" + a.Address
	}
	return a.Address
}

// Host returns the host of a TCP address.
func (a Addr) Host() string {
	host, _, _ := net.SplitHostPort(a.Address)
	return host
}

// Port returns the port of a TCP address.
func (a Addr) Port() string {
	_, port, _ := net.SplitHostPort(a.Address)
	return port
}

// IsLoopback reports whether no other host can reach the address.
func (a Addr) IsLoopback() bool {
	if a.Network != "tcp" {
		return true
	}
	ip, err := netip.ParseAddr(a.Host())
	return a.Host() == "localhost" || err == nil && ip.IsLoopback()
}
