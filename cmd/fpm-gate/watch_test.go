package main

import (
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
