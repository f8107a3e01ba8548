package main

import (
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// watching makes the watchers of PHP's sessions. All folders of all gates and configs share one inotify instance. Gates
// and configs whose sessions are in the same memcached servers share one watcher, so a reload forgets nothing.
type watching struct {
	log   hclog.Logger
	files *sessionwatch.Files // nil: not needed so far

	mu         sync.Mutex
	memcacheds map[string]*sharedWatcher // by their options
}

// sharedWatcher is a watcher that ends with its last user.
type sharedWatcher struct {
	*sessionwatch.Memcached
	users int
	leave func()
}

// Close ends one use of the watcher.
func (s *sharedWatcher) Close() { s.leave() }

// watcher returns the watcher of a gate, nil if its sessions are not watched.
func (w *watching) watcher(g *config.Gate) sessionwatch.Watcher {
	switch {
	case g.Session.Handler == config.HandlerMemcached:
		return w.memcached(g)
	case !watchesFiles(g):
		return nil
	}
	if w.files == nil {
		w.files = sessionwatch.NewFiles(w.report)
	}
	return w.files.Folder(g.Session.SavePath, g.Session.Depth)
}

// memcached returns the watcher of a gate whose sessions are in memcached.
func (w *watching) memcached(g *config.Gate) sessionwatch.Watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := fmt.Sprint(g.Session.Servers, g.Session.KeyPrefix)
	s := w.memcacheds[key]
	if s == nil {
		s = &sharedWatcher{Memcached: sessionwatch.NewMemcached(w.memcachedOptions(g))}
		s.leave = func() { w.leave(key, s) }
		if w.memcacheds == nil {
			w.memcacheds = make(map[string]*sharedWatcher)
		}
		w.memcacheds[key] = s
	}
	s.users++
	return s
}

func (w *watching) memcachedOptions(g *config.Gate) sessionwatch.MemcachedOptions {
	o := sessionwatch.MemcachedOptions{Prefix: g.Session.KeyPrefix, Report: func(err error) {
		if err != nil {
			w.log.Error(cannotWatch, "save_path", g.Session.SavePath, "error", err)
			return
		}
		w.log.Info(watchedAgain, "save_path", g.Session.SavePath)
	}}
	for _, a := range g.Session.Servers {
		o.Network, o.Addresses = append(o.Network, a.Network), append(o.Addresses, a.Address)
	}
	return o
}

// leave ends one use of a shared watcher, and closes it after the last.
func (w *watching) leave(key string, s *sharedWatcher) {
	w.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		delete(w.memcacheds, key)
	}
	w.mu.Unlock()
	if last {
		s.Memcached.Close()
	}
}

// watchesFiles reports whether a gate's sessions are files to be watched.
func watchesFiles(g *config.Gate) bool {
	return g.Session.Handler == config.HandlerFiles && g.Session.SavePath != ""
}

const (
	cannotWatch  = "cannot watch PHP sessions; locks last until the script ends"
	watchedAgain = "PHP sessions are watched again"
)

// report logs once when a folder cannot be watched, and once when it can be again.
func (w *watching) report(folder string, err error) {
	if err != nil {
		w.log.Error(cannotWatch, "folder", folder, "error", err)
		return
	}
	w.log.Info(watchedAgain, "folder", folder)
}

// checkWatching returns a note for each gate of c that, run by the current user, cannot watch PHP's sessions.
func checkWatching(c *config.Config) (notes []string) {
	for _, g := range c.Gates {
		if !watchesFiles(g) {
			continue
		}
		if err := sessionwatch.CheckFolder(g.Session.SavePath, g.Session.Depth); err != nil {
			notes = append(notes, fmt.Sprintf("gate %q: %s: %v", g.Name, cannotWatch, err))
		}
	}
	return notes
}
