package main

import (
	"bufio"
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
)

// probeSessions reports what speaks for and against the session block of each gate: the session files, the settings of
// PHP-FPM as far as they can be read, and what the running gate has seen.
func probeSessions(w io.Writer, c *config.Config) {
	for _, g := range c.Gates {
		if watchesFiles(g) && g.Session.Depth == 0 {
			fmt.Fprintf(w, "gate %q: sessions in %s: %s\n", g.Name, g.Session.SavePath, sessionFiles(g.Session.SavePath, time.Now()))
		}
		for _, difference := range differences(g, "/") {
			fmt.Fprintf(w, "gate %q: warning: %s\n", g.Name, difference)
		}
	}
	if c.Admin == nil {
		return
	}
	o := newOperator(c.Admin.Listen)
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	var page admin.LocksPage
	if err := o.ask(ctx, "GET", "/locks", &page); err != nil {
		fmt.Fprintf(w, "running gate: not asked what it has seen of sessions: %v\n", err)
		return
	}
	for _, warning := range page.Warnings {
		fmt.Fprintf(w, "running gate: warning: %s\n", warning)
	}
}

// maxFiles bounds how many entries of a folder of sessions are read.
const maxFiles = 100_000

// sessionFiles describes the session files in a folder: where there are none, or only old ones, PHP may keep its sessions
// elsewhere.
func sessionFiles(folder string, now time.Time) string {
	dir, err := os.Open(folder)
	if err != nil {
		return err.Error()
	}
	defer dir.Close()
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
		return "warning: no session files; PHP may keep its sessions elsewhere: compare its session.save_path"
	case newest.IsZero():
		return fmt.Sprintf("%d session files", n) // the right to read the folder does not show how old they are
	}
	return fmt.Sprintf("%d session files, the newest written %s ago", n, now.Sub(newest).Round(time.Second))
}

// poolFiles are where PHP-FPM's pools are configured, and iniFiles, for each, where the php.ini of its PHP is.
var (
	poolFiles = []string{"etc/php/*/fpm/pool.d/*.conf", "etc/php-fpm.d/*.conf", "etc/php-fpm.conf", "usr/local/etc/php-fpm.d/*.conf"}
	iniFiles  = []string{"../php.ini", "../php.ini", "php.ini", "../php/php.ini"}
)

// differences finds where PHP's settings are others than the session block of g, in the files below root that can be
// read. What an application or a .user.ini sets does not stand there.
func differences(g *config.Gate, root string) (all []string) {
	for i, pattern := range poolFiles {
		files, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, file := range files {
			for _, pool := range readINI(file) {
				if !listensFor(pool["listen"].value, g) {
					continue
				}
				for _, section := range readINI(filepath.Join(filepath.Dir(file), iniFiles[i])) {
					pool.addMissing(section)
				}
				all = append(all, pool.differences(g)...)
			}
		}
	}
	return all
}

// setting is a value with the place where it stands.
type setting struct{ value, place string }

// settings are those of a section of a file.
type settings map[string]setting

func (s settings) addMissing(others settings) {
	for key, value := range others {
		if _, is := s[key]; !is {
			s[key] = value
		}
	}
}

// differences compares the settings of sessions to the session block of g.
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
	if watchesFiles(g) && (handler == "" || handler == config.HandlerFiles) {
		folder := path[strings.LastIndexByte(path, ';')+1:]
		differ("session.save_path", "save_path", session.SavePath, filepath.Clean(folder) == filepath.Clean(session.SavePath))
	}
	if name := s["session.name"].value; len(session.Cookies) > 0 {
		differ("session.name", "cookies", strings.Join(session.Cookies, ", "), slices.Contains(session.Cookies, name))
	}
	return all
}

// listensFor reports whether a pool with that listen is one that g sends requests to.
func listensFor(listen string, g *config.Gate) bool {
	return slices.ContainsFunc(g.Upstream.Addresses, func(a config.Address) bool {
		if a.Network == "unix" || a.Address == listen {
			return a.Address == listen
		}
		host, port, err := net.SplitHostPort(a.Address)
		ip := net.ParseIP(host)
		return err == nil && port == listen && (host == "localhost" || ip != nil && ip.IsLoopback())
	})
}

// readINI reads the sections of a php.ini or of a file of PHP-FPM's. A file that cannot be read has none.
func readINI(file string) (all []settings) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	section := settings{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			all = append(all, section)
			section = settings{}
			continue
		}
		key, value, is := strings.Cut(line, "=")
		if is && !strings.HasPrefix(line, ";") && !strings.HasPrefix(line, "#") {
			section[iniKey(key)] = setting{iniValue(value), fmt.Sprintf("%s:%d", file, n)}
		}
	}
	return append(all, section)
}

// iniKey is a key as php.ini has it: a pool writes php_admin_value[key].
func iniKey(key string) string {
	key = strings.TrimSpace(key)
	if value, is := strings.CutSuffix(key, "]"); is {
		if _, inner, is := strings.Cut(value, "_value["); is {
			return inner
		}
	}
	return key
}

// iniValue is a value without quotes and comment.
func iniValue(value string) string {
	value = strings.TrimSpace(value)
	if quoted, is := strings.CutPrefix(value, `"`); is {
		value, _, _ = strings.Cut(quoted, `"`)
		return value
	}
	value, _, _ = strings.Cut(value, " ;")
	return strings.TrimSpace(value)
}
