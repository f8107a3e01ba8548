package main

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/phpworker"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// watching makes the watchers of PHP's sessions. All folders of all gates and configs share one inotify instance. Gates
// and configs whose sessions are in the same memcached servers share one watcher, so a reload forgets nothing.
type watching struct {
	log   hclog.Logger
	files *sessionwatch.Files // nil: not needed so far

	confined bool          // this process may not look at workers, whatever its rights
	workers  *gate.Workers // nil: not needed so far

	mu         sync.Mutex
	byWorkers  map[string]bool           // by the folder of sessions: whether the workers are looked at, too
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

// inWorkers returns what looks at the workers of a gate, which all gates share; nil: they are not looked at.
func (w *watching) inWorkers(g *config.Gate) *gate.Workers {
	if !looksAtWorkers(g) {
		return nil
	}
	if w.workers == nil {
		w.workers = gate.NewWorkers(w.finder(), w.log)
	}
	return w.workers
}

func looksAtWorkers(g *config.Gate) bool {
	return g.Session.Watch == config.WatchAuto || g.Session.Watch == config.WatchWorkers
}

// finder returns what finds workers: this process, if it has the rights, else the helper. It is chosen once a process:
// rights do not change while it runs, and a helper may come and go.
func (w *watching) finder() phpworker.Finder {
	if !w.confined && phpworker.Rights() == nil {
		return new(phpworker.Local)
	}
	return new(phpworker.Helper)
}

// watcher returns the watcher of the place where the sessions of a gate are kept; nil: none is watched.
func (w *watching) watcher(g *config.Gate) sessionwatch.Watcher {
	switch {
	case g.Session.Watch == config.WatchWorkers, g.Session.Watch == config.WatchNone:
		return nil
	case g.Session.Handler == config.HandlerMemcached:
		return w.memcached(g)
	case !watchesFiles(g):
		return nil
	}
	if w.files == nil {
		w.files = sessionwatch.NewFiles(w.report)
	}
	w.note(filepath.Clean(g.Session.SavePath), looksAtWorkers(g))
	return w.files.Folder(g.Session.SavePath, g.Session.Depth)
}

// memcached returns the watcher of a gate whose sessions are in memcached. The caller closes it, and the last close of
// all ends it.
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
	return sessionwatch.MemcachedOptions{Servers: g.Session.Servers, Prefix: g.Session.KeyPrefix, Report: func(err error) {
		if err != nil {
			w.logCannotWatch(looksAtWorkers(g), "save_path", g.Session.SavePath, err)
			return
		}
		w.log.Info(watchedAgain, "save_path", g.Session.SavePath)
	}}
}

// unlocker returns what removes the lock of a session of g whose worker was ended; nil: there is none to be removed, or
// the config does not say where. PHP's other handlers have their locks from the kernel, or in a place that only they
// know.
func (w *watching) unlocker(g *config.Gate) func(handler, id string) {
	if g.Session.Handler != config.HandlerMemcached {
		return nil
	}
	return func(handler, id string) {
		if handler != config.HandlerMemcached {
			return
		}
		if err := sessionwatch.UnlockMemcached(w.memcachedOptions(g), id); err != nil {
			w.log.Error("cannot remove the lock of a session whose worker was terminated; it ends by itself",
				"save_path", g.Session.SavePath, "error", err)
		}
	}
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
	s := &g.Session
	watched := s.Watch == config.WatchAuto || s.Watch == config.WatchFiles
	return watched && s.Handler == config.HandlerFiles && s.SavePath != ""
}

const watchedAgain = "PHP sessions are watched again"

// cannotWatch says what it means that the place of the sessions cannot be watched.
func cannotWatch(byWorkers bool) string {
	if byWorkers {
		return "cannot watch PHP sessions where save_path says; needed only where the gate cannot look at PHP-FPM's" +
			" workers"
	}
	return "cannot watch PHP sessions; locks last until the script ends"
}

// logCannotWatch logs that a place cannot be watched. It is no fault where the workers are looked at, as on Debian,
// whose session folder only root may list. That the workers cannot be looked at is a warning of its own.
func (w *watching) logCannotWatch(byWorkers bool, key, place string, err error) {
	level := hclog.Error
	if byWorkers {
		level = hclog.Info
	}
	w.log.Log(level, cannotWatch(byWorkers), key, place, "error", err)
}

// note notes whether a gate whose sessions are in a folder looks at the workers, too. The folder's report comes later
// and from another goroutine, when no gate is at hand.
func (w *watching) note(folder string, byWorkers bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byWorkers == nil {
		w.byWorkers = make(map[string]bool)
	}
	w.byWorkers[folder] = byWorkers
}

// report logs once when a folder cannot be watched, and once when it can be again.
func (w *watching) report(folder string, err error) {
	if err != nil {
		w.mu.Lock()
		byWorkers := w.byWorkers[folder]
		w.mu.Unlock()
		w.logCannotWatch(byWorkers, "folder", folder, err)
		return
	}
	w.log.Info(watchedAgain, "folder", folder)
}

// checkWatching returns a note for each gate of c that, run by the current user, cannot watch PHP's sessions, or that
// has to end scripts and does not look at their workers.
func checkWatching(c *config.Config) (notes []string) {
	for _, g := range c.Gates {
		options := gateOptions(c, g)
		if keys := options.TerminatingKeys(); keys != "" && !looksAtWorkers(g) {
			notes = append(notes, fmt.Sprintf("gate %q: %s cannot end scripts with watch = %q, and is as \"release\"; set watch"+
				" to \"auto\" or \"workers\"", g.Name, keys, g.Session.Watch))
		}
		if !watchesFiles(g) {
			continue
		}
		if err := sessionwatch.CheckFolder(g.Session.SavePath, g.Session.Depth); err != nil {
			notes = append(notes, fmt.Sprintf("gate %q: %s: %v", g.Name, cannotWatch(looksAtWorkers(g)), err))
		}
	}
	return notes
}
