package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// dialAddress is the kind of an address to dial, and of the admin's listen.
var dialAddress = kind[netaddr.Addr]{`"unix:/path" or "host:port"`, func(s string) (netaddr.Addr, error) {
	if socket, ok := strings.CutPrefix(s, "unix:"); ok {
		return unixAddress(socket)
	}
	return tcpAddress(s)
}}

// listenAddress is the kind of a gate's listen.
var listenAddress = kind[netaddr.Addr]{`"unix:/path", "host:port" or "systemd:NAME"`, parseListen}

func parseListen(s string) (netaddr.Addr, error) {
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		return systemdAddress(name)
	}
	return dialAddress.parse(s)
}

// maxSocketPath is in bytes: the path must fit into sockaddr_un.sun_path with a NUL.
const maxSocketPath = 107

// unixAddress parses the path of a socket. It cleans the path, so that two ways to write it count as one address.
func unixAddress(socket string) (netaddr.Addr, error) {
	clean := path.Clean(socket)
	switch {
	case !strings.HasPrefix(socket, "/"):
		return netaddr.Addr{}, formHint(`The path of a socket starts with "/".`)
	// clean would make a socket of a folder's path.
	case strings.HasSuffix(socket, "/") || clean == "/" || hasControl(socket):
		return netaddr.Addr{}, errForm
	case len(clean) > maxSocketPath:
		return netaddr.Addr{}, fmt.Errorf("must be the path of a unix socket, at most %d bytes", maxSocketPath)
	}
	return netaddr.Addr{Network: "unix", Address: clean}, nil
}

// tcpAddress parses "host:port". It resolves no names: a config must be valid whatever the resolver says at the moment.
// The port is written anew, so that 09000 and 9000 count as one address.
func tcpAddress(s string) (netaddr.Addr, error) {
	host, port, err := net.SplitHostPort(strings.ToLower(s))
	n, numErr := strconv.ParseUint(port, 10, 16)
	switch {
	case strings.HasPrefix(s, "/"):
		return netaddr.Addr{}, formHint(fmt.Sprintf("Did you mean %q?", "unix:"+s))
	case strings.HasPrefix(s, "systemd:"):
		return netaddr.Addr{}, formHint("Only a gate's listen can be a socket from systemd.")
	case err != nil && isPort(s):
		return netaddr.Addr{}, missingHost(s)
	case err != nil:
		return netaddr.Addr{}, errForm
	case host == "":
		return netaddr.Addr{}, missingHost(port)
	case !isHost(host):
		return netaddr.Addr{}, errForm
	case numErr != nil || n == 0:
		return netaddr.Addr{}, formHint("A port is a number from 1 to 65535.")
	}
	return netaddr.Addr{Network: "tcp", Address: net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
}

// missingHost returns the hint for a port alone. PHP-FPM accepts that as its listen, so operators try it here.
func missingHost(port string) error {
	if !isPort(port) {
		return formHint("The host is missing.")
	}
	return formHint(fmt.Sprintf("The host is missing: use %q for this machine only, or %q for all of its addresses.",
		"127.0.0.1:"+port, "0.0.0.0:"+port))
}

// isPort reports whether s is a port number.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// systemdAddress accepts the names that systemd accepts as FileDescriptorName=.
func systemdAddress(name string) (netaddr.Addr, error) {
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == ':' }
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, bad) {
		return netaddr.Addr{}, errForm
	}
	return netaddr.Addr{Network: "systemd", Address: name}, nil
}

var (
	nameForm  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	digitForm = regexp.MustCompile(`^[0-9.]+$`) // not a name: an IPv4 address or a typo
)

// isHost reports whether s is a host name or an IP address, without a port and without brackets.
func isHost(s string) bool {
	if nameForm.MatchString(s) && !digitForm.MatchString(s) {
		return len(s) <= 253
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// excludes reports whether one process cannot listen on both addresses. Go listens on all addresses of both families
// for "0.0.0.0" and for "::".
func excludes(a, b netaddr.Addr) bool {
	return a == b || samePort(a, b) && (isWildcard(a) || isWildcard(b) || ipOf(a) == ipOf(b) && ipOf(a).IsValid())
}

// leadsTo reports whether a connection to an address reaches this machine's own listener. One to a wildcard address
// reaches loopback. An address of a network may be another host's, whatever listens here.
func leadsTo(listen, dial netaddr.Addr) bool {
	if listen == dial {
		return true
	}
	here := dial.IsLoopback() || isWildcard(dial)
	return here && excludes(listen, dial) && (listen.IsLoopback() || isWildcard(listen))
}

func samePort(a, b netaddr.Addr) bool {
	return a.Network == "tcp" && b.Network == "tcp" && a.Port() == b.Port()
}

// isWildcard reports whether a TCP address stands for all of this machine's.
func isWildcard(a netaddr.Addr) bool { return a.Network == "tcp" && ipOf(a).IsUnspecified() }

// ipOf returns the host of a TCP address; the zero Addr for a name other than localhost.
func ipOf(a netaddr.Addr) netip.Addr {
	if a.Host() == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	ip, _ := netip.ParseAddr(a.Host())
	return ip.Unmap()
}

// hasControl reports whether s has a control character, which is never intended in a path or a pattern.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
