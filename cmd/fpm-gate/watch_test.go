package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
)

// TestGatesOfOneMemcachedShareAWatcher, so that PHP's own memcached has one connection of this process, whatever gates
// and reloads there are.
func TestGatesOfOneMemcachedShareAWatcher(t *testing.T) {
	conf, err := config.Parse([]byte(`
gate "a" {
  listen = "unix:/run/a.sock"
  upstream { address = "unix:/run/php.sock" }
  session {
    handler   = "memcached"
    save_path = "127.0.0.1:1"
  }
}
gate "b" {
  listen = "unix:/run/b.sock"
  upstream { address = "unix:/run/php.sock" }
  session {
    handler   = "memcached"
    save_path = "127.0.0.1:1"
  }
}
gate "c" {
  listen = "unix:/run/c.sock"
  upstream { address = "unix:/run/php.sock" }
  session {
    handler    = "memcached"
    save_path  = "127.0.0.1:1"
    key_prefix = "c."
  }
}`), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{log: hclog.NewNullLogger()}
	a, b, c := w.watcher(conf.Gates[0]), w.watcher(conf.Gates[1]), w.watcher(conf.Gates[2])
	if a != b || a == c {
		t.Errorf("a and b share a watcher: %v, a and c: %v, want that of equal options shared", a == b, a == c)
	}
	a.Close()
	if again := w.watcher(conf.Gates[0]); again != b {
		t.Error("a watcher that is in use was not shared")
	}
	b.Close()
	b.Close() // the use of the one before
	c.Close()
	if n := len(w.memcacheds); n != 0 {
		t.Errorf("%d watchers are left, want none", n)
	}
}

// On Debian the gate may not read PHP's session folder, and looks at the workers: an error there would be one in the log
// of every installation.
func TestAPlaceThatCannotBeWatchedIsAnErrorOnlyIfNothingElseIsLookedAt(t *testing.T) {
	failed := errors.New("permission denied")
	for _, handler := range []string{config.HandlerFiles, config.HandlerMemcached} {
		for watch, level := range map[string]string{config.WatchAuto: "[INFO]", handler: "[ERROR]"} {
			var log bytes.Buffer
			w := &watching{log: hclog.New(&hclog.LoggerOptions{Output: &log})}
			g := &config.Gate{Session: config.Session{Handler: handler, Watch: watch, SavePath: "/sessions"}}
			if handler == config.HandlerFiles {
				w.note(g.Session.SavePath, looksAtWorkers(g))
				w.report(g.Session.SavePath, failed)
			} else {
				w.memcachedOptions(g).Report(failed)
			}
			if got := log.String(); !strings.Contains(got, level) || !strings.Contains(got, "cannot watch PHP sessions") {
				t.Errorf("%s, watch = %q: got %q, want %s", handler, watch, got, level)
			}
		}
	}
}
