package fcgi

import (
	"path/filepath"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// TestServingNamesTheConnectionOfARequest: while its script runs, and no longer. While keeps it from serving another.
func TestServingNamesTheConnectionOfARequest(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 2})
		f.script("serving.php", `touch($_GET['f'] . '.on'); `+untilTold+` echo "x";`)
		mark := filepath.Join(t.TempDir(), "mark")
		pool := newPool(t, nil, f.addr)
		run := start(t, pool, "unix", func(*Exchange) {}, f.get(1, true, "serving.php", "f="+mark))
		await(t, "the script runs", func() bool { return exists(mark + ".on") })
		at, ok := run.x.Serving()
		if !ok || !at.IsNow() || at.Addr() != f.addr {
			t.Fatalf("got %v, %v, want the connection to %v", at, ok, f.addr)
		}
		if !at.While(func() { touch(t, mark+".end") }) {
			t.Error("the connection is said to serve no longer")
		}
		if got := run.web.response(1); got.body() != "x" {
			t.Errorf("got %q", got.body())
		}
		if err := run.result(); err != nil {
			t.Error(err)
		}
		if _, ok := run.x.Serving(); ok || at.IsNow() || at.While(func() { t.Error("called after the end") }) {
			t.Error("the connection is said to serve a request that has ended")
		}
	})
}
