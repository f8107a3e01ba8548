package main

import (
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// watching makes the watchers of PHP's sessions. All folders of all gates and configs share one inotify instance.
type watching struct {
	log   hclog.Logger
	files *sessionwatch.Files // nil: no gate has needed it yet, or there is none to be had
}

// watcher makes that of a gate; nil: nothing is watched.
func (w *watching) watcher(g *config.Gate) sessionwatch.Watcher {
	if !watched(g) {
		return nil
	}
	if w.files == nil {
		files, err := sessionwatch.NewFiles(w.report)
		if err != nil {
			w.log.Error(cannotWatch, "gate", g.Name, "error", err)
			return nil
		}
		w.files = files
	}
	return w.files.Folder(g.Session.SavePath, g.Session.Depth)
}

// watched says whether a gate's sessions are to be watched.
func watched(g *config.Gate) bool {
	return g.Session.Handler == config.HandlerFiles && g.Session.SavePath != ""
}

const cannotWatch = "PHP's sessions cannot be watched, their locks last until the script ends"

// report tells of a folder once when it cannot be watched, and once when it can again.
func (w *watching) report(folder string, err error) {
	if err != nil {
		w.log.Error(cannotWatch, "folder", folder, "error", err)
		return
	}
	w.log.Info("PHP's sessions are watched again", "folder", folder)
}

// checkWatching says what keeps the gates of c from watching PHP's sessions, if they ran as who asks.
func checkWatching(c *config.Config) (notes []string) {
	for _, g := range c.Gates {
		if !watched(g) {
			continue
		}
		if err := sessionwatch.CheckFolder(g.Session.SavePath, g.Session.Depth); err != nil {
			notes = append(notes, fmt.Sprintf("gate %q: %s: %v", g.Name, cannotWatch, err))
		}
	}
	return notes
}
