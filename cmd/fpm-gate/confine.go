package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// confine leaves to this process only the files and folders that its config needs. What keeps it from that is logged,
// and nothing else comes of it: c is served already. It is called once, before the first reload.
func (s *server) confine(f *serveFlags, c *config.Config) {
	s.confinable = c.Landlock
	if !c.Landlock {
		return
	}
	version, err := landlock.Version()
	if err != nil {
		s.log.Debug("no Landlock: all files that this user may open are within reach", "error", err)
		return
	}
	if s.watching.workers != nil && phpworker.Rights() == nil {
		s.log.Info("no Landlock: a restricted process cannot look at PHP-FPM's workers; fpm-gate helper could for it")
		return
	}
	rules := rulesFor(f.config, c)
	switch err := confineTo(rules, f); {
	case errors.Is(err, landlock.ErrCgo):
		s.log.Debug("no Landlock", "error", err)
	case err != nil:
		s.log.Warn("no Landlock: all files that this user may open are within reach", "error", err)
	default:
		s.rules, s.watching.confined = rules, true
		s.log.Info("this process can open only what its config names", "landlock", version)
	}
}

// confineTo restricts this process to rules, if its config can be read and judged with them.
func confineTo(rules landlock.Rules, f *serveFlags) error {
	err := landlock.Try(rules, func() error {
		c, err := f.load()
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

// reach returns an error if c needs what this process may not open.
func (s *server) reach(f *serveFlags, c *config.Config) error {
	if s.rules == nil {
		return nil
	}
	var all []string
	for _, r := range s.rules.Beyond(rulesFor(f.config, c)) {
		all = append(all, r.Path)
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("%s: not within reach, as the config of the start did not name it; restart fpm-gate, or set"+
		" landlock = false and restart it once", strings.Join(all, ", "))
}

// explainReach logs what to do if this process may have been denied what err is about because it is confined.
func (s *server) explainReach(err error) {
	if s.rules != nil && strings.Contains(err.Error(), syscall.EACCES.Error()) { // of a config.Error there is only text
		s.log.Error("this process can open only what the config of its start named; restart it for a file elsewhere")
	}
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
	if folder := os.Getenv("CREDENTIALS_DIRECTORY"); folder != "" {
		r.Allow(folder, landlock.ReadFiles)
	}
	if folders := os.Getenv("RUNTIME_DIRECTORY"); folders != "" { // for further sockets, to hand over locks, and pauses
		for _, folder := range strings.Split(folders, ":") {
			r.Allow(folder, landlock.MakeSockets|landlock.KeepFiles)
		}
	}
	for _, a := range listened(c) {
		if a.Network == "unix" {
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
// no file.
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

// allowTLS allows the files of TLS to be read, or the system's CAs.
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

// namesHosts reports whether c has hosts that are given by their names.
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
