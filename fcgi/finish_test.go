package fcgi

import (
	"path/filepath"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// A script that has called fastcgi_finish_request, as those of many frameworks do, keeps its worker. Whoever comes next
// must not wait for it where other workers are free.
func TestNextRequestDoesNotWaitForAScriptThatGoesOnAfterItsAnswer(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 3})
	f.script("finished.php", `echo "x"; fastcgi_finish_request(); touch($_GET['f'] . '.on'); `+untilTold)
	for name, limit := range map[string]int{"without max_connections": 0, "with max_connections": 1} {
		mark := filepath.Join(t.TempDir(), "mark")
		pool := newPool(t, func(o *PoolOptions) { o.MaxConnections = limit }, f.addr)
		run := start(t, pool, "unix", nil, f.get(1, true, "finished.php", "f="+mark))
		run.web.response(1)
		if err := run.result(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			run.again(pool, nil, f.get(1, true, "hello.php", ""))
			if got := run.web.response(1); got.body() != "hello\n" {
				t.Errorf("%s: got %q", name, got.body())
			}
			if err := run.result(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			await(t, "the worker is back", func() bool { return restsAll(pool) })
		}
		if s := pool.Stats(); s.Dials != 2 {
			t.Errorf("%s: got %+v, want two connections: the second one serves all that came later", name, s)
		}
		touch(t, mark+".end")
	}
}

func TestWaiterGetsAConnectionInThePlaceOfOneThatIsNotBack(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 2})
	f.script("finished.php", `usleep(50000); echo "x"; fastcgi_finish_request(); `+untilTold)
	mark := filepath.Join(t.TempDir(), "mark")
	pool := newPool(t, func(o *PoolOptions) { o.MaxConnections = 1 }, f.addr)
	first := start(t, pool, "unix", nil, f.get(1, true, "finished.php", "f="+mark))
	await(t, "the first one runs", func() bool { return pool.Stats().Dials == 1 })
	second := start(t, pool, "unix", nil, f.get(1, true, "hello.php", ""))
	first.web.response(1)
	if got := second.web.response(1); got.body() != "hello\n" {
		t.Errorf("got %q", got.body())
	}
	for _, run := range []*running{first, second} {
		if err := run.result(); err != nil {
			t.Error(err)
		}
	}
	touch(t, mark+".end")
}
