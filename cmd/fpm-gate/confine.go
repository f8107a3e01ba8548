package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// confineTo restricts this process to rules, if its config can be read and judged with them. A restriction is for good.
// So whatever the rules leave out has to show before it: Try does, on a thread of its own, what a reload will do.
func confineTo(rules landlock.Rules, load func() (*config.Config, error)) error {
	err := landlock.Try(rules, func() error {
		c, err := load()
		if err != nil {
			return err
		}
		return judge(c)
	})
	if err != nil {
		return fmt.Errorf("try it: %w", err)
	}
	return landlock.Restrict(rules)
}

// rulesFor returns what the process that serves c needs, for as long as it serves. Of files it is their folders: most
// programs replace a file by another one of its name.
func rulesFor(file string, c *config.Config) (r landlock.Rules) {
	r.Allow("/proc", landlock.ReadFiles|landlock.ListFolders) // for the metrics of this process, and the kernel's limits
	for _, accounts := range []string{"/etc/passwd", "/etc/group"} {
		r.Allow(accounts, landlock.ReadFiles) // a reload may name an owner for a socket
	}
	for _, name := range append([]string{file}, c.Files...) {
		allowFile(&r, name)
	}
	if folder := os.Getenv("CREDENTIALS_DIRECTORY"); folder != "" { // for credential() in the config
		r.Allow(folder, landlock.ReadFiles)
	}
	if folders := os.Getenv("RUNTIME_DIRECTORY"); folders != "" { // for further sockets, to hand over locks, and pauses
		for _, folder := range strings.Split(folders, ":") {
			r.Allow(folder, landlock.MakeSockets|landlock.KeepFiles)
		}
	}
	for _, a := range listened(c) {
		if a.Network == "unix" { // each socket is made under another name and renamed, so it is the folder that counts
			r.Allow(filepath.Dir(a.Address), landlock.MakeSockets)
		}
	}
	allowTLS(&r, c)
	if namesHosts(c) {
		for _, folder := range nameFolders {
			r.Allow(folder, landlock.ReadFiles)
		}
	}
	return r
}

// maxLinks is how many symbolic links may lead to a file, as in Linux.
const maxLinks = 40

// allowFile allows a file to be read, and another one that takes its place, or that of a link on the way to it. "" is
// no file. A rule is for a file, not for its name, so it allows the folder of each name on the way.
func allowFile(r *landlock.Rules, name string) {
	path, err := filepath.Abs(name)
	if name == "" || err != nil {
		return
	}
	for range maxLinks {
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return
		}
		if folder == "/" { // too much
			r.Allow(path, landlock.ReadFiles)
		} else {
			r.Allow(folder, landlock.ReadFiles)
		}
		to, err := os.Readlink(path)
		if err != nil {
			return
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(folder, to)
		}
		path = to
	}
}

// allowTLS allows the files of TLS to be read, or the system's CAs. Go reads those at the first connection that needs
// them, which may be long after the restriction.
func allowTLS(r *landlock.Rules, c *config.Config) {
	if c.Memcached == nil || c.Memcached.TLS == nil {
		return
	}
	t := c.Memcached.TLS
	for _, name := range []string{t.CA, t.Cert, t.Key} {
		allowFile(r, name)
	}
	if t.CA != "" {
		return
	}
	allowFile(r, os.Getenv("SSL_CERT_FILE"))
	for _, folder := range append(strings.Split(os.Getenv("SSL_CERT_DIR"), ":"), caFolders...) {
		if folder != "" {
			r.Allow(folder, landlock.ReadFiles|landlock.ListFolders)
		}
	}
}

// caFolders have the CAs of the system, by its distribution, and what the links in them lead to.
var caFolders = []string{"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates",
	"/usr/local/share/ca-certificates", "/usr/share/pki", "/var/lib/ca-certificates"}

// nameFolders have the files of hosts and name servers. They are replaced when a network changes, so their folders are
// allowed.
var nameFolders = []string{"/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager"}

// namesHosts reports whether c has hosts that are given by their names. An address that it cannot take apart counts as
// one: a rule too many is better than a name that cannot be resolved.
func namesHosts(c *config.Config) bool {
	addresses := listened(c)
	for _, g := range c.Gates {
		addresses = append(append(addresses, g.Upstream.Addresses...), g.Session.Servers...)
	}
	if c.Memcached != nil {
		addresses = append(addresses, c.Memcached.Servers...)
	}
	return slices.ContainsFunc(addresses, func(a netaddr.Addr) bool {
		host, _, err := net.SplitHostPort(a.Address)
		return a.Network == "tcp" && (err != nil || host != "" && net.ParseIP(host) == nil)
	})
}

// listened are the addresses that c listens on.
func listened(c *config.Config) (all []netaddr.Addr) {
	if c.Admin != nil {
		all = append(all, c.Admin.Listen)
	}
	for _, g := range c.Gates {
		all = append(all, g.Listen)
	}
	return all
}
