package tests

import (
	"fmt"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// A browser leaves an event stream again and again. Each time PHP must notice, as it does without the gate, and the
// session's next request must see what the stream's script has written to it.
func TestAStreamThatIsLeftEndsAndLosesNoUpdate(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		for name, c := range map[string]struct {
			programs []string
			ini      func(*testing.T, *rig.Rig) map[string]string
			settings string // of the gate; a verb stands for the folder of the sessions
		}{
			"files, unknown to the gate": {},
			"files, watched":             {settings: "session {\nhandler = \"files\"\nsave_path = %q\nwatch = \"files\"\n}"},
			"redis without locks": {[]string{"redis-server", "php-redis"}, func(t *testing.T, r *rig.Rig) map[string]string {
				return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), false)
			}, ""},
			"redis with locks": {[]string{"redis-server", "php-redis"}, func(t *testing.T, r *rig.Rig) map[string]string {
				return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), true)
			}, "session { locks = true }"},
		} {
			t.Run(network+", "+name, func(t *testing.T) {
				t.Parallel()
				o := rig.PHPOptions{Listen: rig.Addr{Network: network}, Workers: 3}
				r := newRig(t, append(c.programs, "nginx", "php-fpm")...)
				if c.ini != nil {
					o.INI = c.ini(t, r)
				}
				php := rigtest.Start(t, r.PHPFPM, o)
				if c.settings != "" && c.ini == nil {
					c.settings = fmt.Sprintf(c.settings, php.Sessions)
				}
				c.settings += "\n" + `lock { abandon_after = "50s" }`
				gate := startGate(t, r, rig.GateOptions{Upstream: php.Addr, Settings: c.settings})
				site := &rig.Site{FastCGI: gate.Addr, Unbuffered: true}
				rigtest.Start(t, r.Nginx, rig.NginxOptions{Sites: []*rig.Site{site}})
				leaveStreams(t, r, site)
			})
		}
	}
}

// leaveStreams leaves five streams of a session in their middle, one after the other.
func leaveStreams(t *testing.T, r *rig.Rig, site *rig.Site) {
	t.Helper()
	session := newSession()
	for i := range 5 {
		mark := fmt.Sprintf("stream%d", i)
		leave(t, r, site, request{path: "/left.php?mark=" + mark, session: session}, mark)
		if got := <-begin(site, request{path: "/count.php", session: session}); got.body != fmt.Sprintf("%d\n", i+1) {
			t.Errorf("after %d streams the session has counted %q", i+1, got.body)
		}
		if marked(r, mark+".whole") {
			t.Error("a script has gone on to its end")
		}
	}
}
