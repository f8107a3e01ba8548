package fcgi

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// finishedScripts go on after fastcgi_finish_request() until the test lets them end.
var finishedScripts = map[string]string{
	"silent":         ``,
	"printing":       `ignore_user_abort(true); for ($i = 0; $i < 100; $i++) { echo str_repeat("LATE", 5000); flush(); }`,
	"reading stdin":  `file_get_contents('php://input');`,
	"in a shutdown":  `register_shutdown_function(function () { ` + untilTold + ` }); exit;`,
	"logging errors": `error_log("LATE");`,
}

func TestScriptIsFollowedToItsEndAfterItsResponse(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{Workers: 4})
		for name, goesOn := range finishedScripts {
			for _, method := range []string{"GET", "POST"} {
				for _, reuse := range []time.Duration{0, patience} {
					f.script("follow.php", `echo "x"; fastcgi_finish_request(); touch($_GET['f'] . '.on'); `+goesOn+untilTold)
					mark := filepath.Join(t.TempDir(), "mark")
					request := f.get(1, true, "follow.php", "f="+mark)
					if method == "POST" {
						body := strings.Repeat("body", 5000)
						request = requestOf(1, true, body, f.params("follow.php", "f="+mark,
							"CONTENT_LENGTH", strconv.Itoa(len(body)), "CONTENT_TYPE", "text/plain", "REQUEST_METHOD", "POST")...)
					}
					pool := newPool(t, func(o *PoolOptions) { o.Reuse = reuse }, f.addr)
					run := start(t, pool, "unix", func(x *Exchange) { x.Follow = func() bool { return true } }, request)
					if got := run.web.response(1); got.body() != "x" {
						t.Errorf("%s: got %q", name, got.body())
					}
					if err := run.result(); err != nil {
						t.Errorf("%s: %v", name, err)
					}
					if !run.x.Follows() {
						t.Fatalf("%s, %s, reuse %v: the script is not followed", name, method, reuse)
					}
					followed := make(chan struct{})
					go func() {
						run.x.AwaitScript()
						close(followed)
					}()
					await(t, "the script goes on", func() bool { return exists(mark + ".on") })
					if sooner(followed, 20*time.Millisecond) || run.isEnded() {
						t.Errorf("%s, %s, reuse %v: the script is said to have ended while it runs", name, method, reuse)
					}
					if s := pool.Stats(); s.Open != 0 {
						t.Errorf("%s: got %+v, want a connection that the pool does not count", name, s)
					}
					touch(t, mark+".end")
					receive(t, "the script has ended", followed)
					if !run.isEnded() {
						t.Errorf("%s: Ended was not called", name)
					}
				}
			}
		}
	})
}
