package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpsession"
)

// probeSessions reports evidence for and against the session block of each gate: the session files, PHP-FPM's settings
// as far as they can be read, and what the running gate has seen. With a depth the files are in thousands of folders,
// and are left out.
func probeSessions(w io.Writer, c *config.Config) {
	for _, g := range c.Gates {
		if watchesFiles(g) && g.Session.Depth == 0 {
			files := sessionFiles(g.Session.SavePath, time.Now())
			fmt.Fprintf(w, "gate %q: sessions in %s: %s\n", g.Name, g.Session.SavePath, files)
		}
		for _, difference := range differences(g, "/") {
			fmt.Fprintf(w, "gate %q: warning: %s\n", g.Name, difference)
		}
	}
	if c.Admin == nil {
		return
	}
	// The running gate may have another config. What it has seen of sessions is evidence all the same.
	client := newAdminClient(c.Admin.Listen)
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	var page admin.LocksPage
	if err := client.do(ctx, "GET", "/locks", &page); err != nil {
		fmt.Fprintf(w, "running gate: cannot ask what it has seen of sessions: %v\n", err)
		return
	}
	for _, warning := range page.Warnings {
		fmt.Fprintf(w, "running gate: warning: %s\n", warning)
	}
}

// maxFiles bounds the entries of a session folder that are read.
const maxFiles = 100_000

// sessionFiles describes the session files in a folder. If there are none, or only old ones, PHP may keep its sessions
// elsewhere.
func sessionFiles(folder string, now time.Time) string {
	dir, err := os.Open(folder)
	if err != nil {
		return err.Error()
	}
	defer dir.Close()
	// On an error it returns what it has read so far, which is evidence, too.
	entries, _ := dir.ReadDir(maxFiles)
	n, newest := 0, time.Time{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "sess_") {
			continue
		}
		n++
		if info, err := e.Info(); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	switch {
	case n == 0:
		return "warning: no session files; compare session.save_path in PHP's settings"
	case newest.IsZero():
		return fmt.Sprintf("%d session files", n) // a folder that can be listed but not searched hides their ages
	}
	return fmt.Sprintf("%d session files, the newest written %s ago", n, now.Sub(newest).Round(time.Second))
}

// poolFiles are the usual places of PHP-FPM's pool configuration. For each, iniFiles has the php.ini, and iniFolders
// the files that PHP reads after it, both relative to the folder of the pools.
var (
	poolFiles = []string{
		"etc/php/*/fpm/pool.d/*.conf", "etc/php-fpm.d/*.conf", "etc/php-fpm.conf", "usr/local/etc/php-fpm.d/*.conf",
	}
	iniFiles   = []string{"../php.ini", "../php.ini", "php.ini", "../php/php.ini"}
	iniFolders = []string{"../conf.d/*.ini", "../php.d/*.ini", "php.d/*.ini", "../php/conf.d/*.ini"}
)

// phpINIs returns the php.ini of the pools in dir, which poolFiles[i] has found, and the files after it. The last that
// PHP reads wins, and addMissing keeps what is there, so they come in the reverse order.
func phpINIs(dir string, i int) []string {
	files := []string{filepath.Join(dir, iniFiles[i])}
	more, _ := filepath.Glob(filepath.Join(dir, iniFolders[i]))
	files = append(files, more...)
	slices.Reverse(files)
	return files
}

// differences compares PHP's settings with the session block of g, in the files below root that can be read. It does
// not see what an application or a .user.ini sets.
func differences(g *config.Gate, root string) (all []string) {
	for i, pattern := range poolFiles {
		files, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, pool := range readPools(files) {
			pool.expandPool()
			if !listensFor(pool["listen"].value, g, root) {
				continue
			}
			for _, ini := range phpINIs(pool.folder(), i) {
				pool.addMissing(readPHPINI(ini))
			}
			all = append(all, pool.differences(g)...)
		}
	}
	return all
}

// differences compares the session settings with the session block of g. A setting that no file has is PHP's default,
// or an application's, and is not compared.
func (s settings) differences(g *config.Gate) (all []string) {
	differ := func(key, configKey, want string, same bool) {
		if v := s[key]; v.value != "" && !same {
			all = append(all, fmt.Sprintf("%s: %s is %q, but %s is %q", v.place, key, v.value, configKey, want))
		}
	}
	session := &g.Session
	handler, path := s["session.save_handler"].value, s["session.save_path"].value
	if session.Handler != config.HandlerAny {
		differ("session.save_handler", "handler", session.Handler, handler == session.Handler)
	}
	// Without save_handler PHP keeps sessions in files. Other handlers have other paths.
	if watchesFiles(g) && (handler == "" || handler == config.HandlerFiles) {
		folder := path[strings.LastIndexByte(path, ';')+1:] // after depth and mode
		same := filepath.Clean(folder) == filepath.Clean(session.SavePath)
		differ("session.save_path", "save_path", session.SavePath, same)
	}
	// An application names its cookies itself, whatever php.ini says.
	if name := s["session.name"].value; len(session.Cookies) > 0 && session.Application == "" {
		rules := phpsession.Rules{Cookies: session.Cookies}
		differ("session.name", "cookies", strings.Join(session.Cookies, ", "), rules.Names([]byte(name)))
	}
	return all
}

// listensFor reports whether g sends requests to a pool with that listen setting, in the system below root.
func listensFor(listen string, g *config.Gate, root string) bool {
	return slices.ContainsFunc(g.Upstream.Addresses, func(a netaddr.Addr) bool {
		if a.Network == "unix" {
			return realPath(root, a.Address) == realPath(root, listen)
		}
		if a.Address == listen {
			return true
		}
		// A port alone is a pool of this machine, so the gate's address must lead here.
		host, port, err := net.SplitHostPort(a.Address)
		ip := net.ParseIP(host)
		return err == nil && port == listen && (host == "localhost" || ip != nil && ip.IsLoopback())
	})
}
