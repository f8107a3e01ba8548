package fcgi

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// leftScripts are left by their web server when their mark .on is there. The mark .ended is there when they have ended,
// as a session that is written then.
var leftScripts = map[string]struct {
	text   string
	endsOn string // the mark that ends it; empty: the hang-up does
	seen   bool   // its end is seen over TCP, too
}{
	"printing":           {`for (;;) { echo "x\n"; flush(); touch("$f.on"); usleep(500000); }`, "", true},
	"printing much":      {`for (;;) { echo str_repeat("x", 100000); touch("$f.on"); }`, "", true},
	"printing, then not": {`echo "x\n"; flush(); touch("$f.on"); ` + untilTold, ".end", true},
	"silent":             {`touch("$f.on"); ` + untilTold + ` echo "x";`, ".end", true},
	"going on all the same": {`ignore_user_abort(true); touch("$f.on");
		while (!file_exists("$f.end")) { echo "x\n"; flush(); usleep(10000); clearstatcache(); }`, ".end", false},
}

// A script whose web server has gone ends as it would without the gate, and is not said to have ended before.
func TestScriptWhoseWebServerHasGoneEndsAsWithoutTheGate(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		before := startFPM(t, network, rig.PHPOptions{Workers: 4}) // its scripts begin when the body is there
		at := startFPM(t, network, rig.PHPOptions{Workers: 4, INI: map[string]string{"enable_post_data_reading": "0"}})
		for name, script := range leftScripts {
			file := strings.ReplaceAll(name, " ", "-") + ".php"
			for _, f := range []*fpm{before, at} {
				f.script(file, `$f = $_GET['f']; ob_end_clean();
					register_shutdown_function(function () use ($f) { touch("$f.ended"); });`+script.text)
			}
			for _, follow := range []bool{true, false} {
				for _, size := range []struct{ body, left int }{{0, 0}, {20000, 0}, {20000, 5000}} {
					t.Run(fmt.Sprintf("%s, follow %t, body %d, unsent %d", name, follow, size.body, size.left), func(t *testing.T) {
						body := strings.Repeat("b", size.body)
						mark, f := filepath.Join(t.TempDir(), "mark"), before
						if size.left > 0 {
							f = at
						}
						request := requestOf(1, true, body, f.params(file, "f="+mark, "REQUEST_METHOD", "POST",
							"CONTENT_LENGTH", strconv.Itoa(len(body)), "CONTENT_TYPE", "text/plain")...)
						sent := make(chan bool, 1)
						run := start(t, newPool(t, nil, f.addr), "unix", func(x *Exchange) {
							x.Sent = func() { sent <- true }
							if follow {
								x.Follow = func() bool { return true }
							}
						}, request[:len(request)-size.left])
						await(t, "the script runs", func() bool { return exists(mark + ".on") })
						if size.left == 0 {
							receive(t, "the end of stdin", sent)
						}
						if name != "silent" { // what the web server has got was printed before it goes
							if _, _, err := readRecord(run.web.Conn); err != nil {
								t.Fatal(err)
							}
						}
						run.web.Close()
						done := make(chan struct{})
						go func() {
							defer close(done)
							if err := run.result(); !errors.Is(err, ErrHungUp) {
								t.Errorf("got %v, want ErrHungUp", err)
							}
							if run.x.Follows() {
								run.x.AwaitScript()
							}
						}()
						seen := network == "unix" && size.left == 0 || script.seen
						if script.endsOn != "" {
							if seen && (sooner(run.ended, 4*cutGrace) || exists(mark+".ended")) {
								t.Error("the script is said to have ended while it runs")
							}
							if !seen { // and nothing is held for it
								receive(t, "the end of the exchange", run.ended)
							}
							touch(t, mark+script.endsOn)
						}
						receive(t, "the end of the script", run.ended)
						if seen && !exists(mark+".ended") {
							t.Error("the script is said to have ended while it runs")
						}
						await(t, "the script ends", func() bool { return exists(mark + ".ended") })
						receive(t, "the end of following it", done)
					})
				}
			}
		}
	})
}

func TestNextOutputIsExpectedInTheScriptsRhythm(t *testing.T) {
	for name, c := range map[string]struct {
		waits []time.Duration // before each read
		known bool            // at once
		want  time.Duration
	}{
		"one output after a wait":     {[]time.Duration{time.Second}, false, 2 * cutGrace},
		"much at once":                {[]time.Duration{time.Millisecond, 0, 0}, false, 2 * cutGrace},
		"two outputs":                 {[]time.Duration{0, time.Second}, true, 2 * time.Second},
		"a steady stream":             {[]time.Duration{time.Second, time.Second / 4, time.Second / 2, 0}, true, time.Second},
		"much, a pause, and one more": {[]time.Duration{0, 0, 0, 3 * time.Second}, true, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r rhythm
				for _, d := range c.waits {
					r.count(d)
				}
				if r.known() != c.known || r.next() != c.want {
					t.Errorf("got %t and %v, want %t and %v", r.known(), r.next(), c.known, c.want)
				}
				time.Sleep(2 * cutGrace)
				if !r.known() {
					t.Error("output that goes on without a pause is not expected to go on")
				}
			})
		})
	}
}
