package tests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// places are the ways in which PHP may keep its sessions, and whether that is where the gate watches them.
var places = map[string]struct {
	handler string            // of the gate's config
	ini     map[string]string // of PHP, where it differs from that
	how     string            // of place.php
	fits    bool
}{
	"files":                            {handler: "files", how: "plain", fits: true},
	"files in another folder":          {handler: "files", how: "plain", ini: map[string]string{"session.save_path": elsewhere}},
	"files, the application's folder":  {handler: "files", how: "elsewhere"},
	"files, the application's own":     {handler: "files", how: "own"},
	"memcached":                        {handler: "memcached", how: "plain", fits: true},
	"memcached, sess_locking off":      {handler: "memcached", how: "plain", ini: map[string]string{"memcached.sess_locking": "0"}},
	"memcached, another prefix":        {handler: "memcached", how: "plain", ini: map[string]string{"memcached.sess_prefix": "shop."}},
	"memcached, the application's own": {handler: "memcached", how: "own"},
}

// elsewhere stands for a folder of PHP's that the gate does not know.
const elsewhere = "elsewhere"

// TestASessionThatIsKeptElsewhereIsParkedAllTheSame: with each way to keep sessions, strict mode on and off, and after
// visitors have sent ids that they made up, no update is lost, and where PHP keeps them elsewhere than the config says, no
// script gives its turn away, and that is reported once.
func TestASessionThatIsKeptElsewhereIsParkedAllTheSame(t *testing.T) {
	t.Parallel()
	for name, p := range places {
		for _, strict := range []string{"0", "1"} {
			t.Run(name+", strict mode "+strict, func(t *testing.T) {
				t.Parallel()
				ini := map[string]string{"session.use_strict_mode": strict}
				for key, value := range p.ini {
					if ini[key] = value; value == elsewhere {
						ini[key] = t.TempDir()
					}
				}
				s := newWatchedStack(t, p.handler, `open_within = "20ms"`, stackOptions{PHP: rig.PHPOptions{Workers: 10, INI: ini}})
				path := "/place.php?how=" + p.how + "&before=40&ms=10"
				for range 20 {
					s.get(path, newSession()) // a stale cookie, or one that was made up
				}
				session := s.newSession(t, path)
				const n = 24
				running, _, responses := s.witness(t, "/place.php", "", crowd(s.Site, path, session, n))
				for _, r := range responses {
					if err := r.failure(); err != nil {
						t.Error(err)
					}
				}
				s.get(path, session).mustBe(t, fmt.Sprintln(n+2))
				if !p.fits && running > 2 { // one comes while another goes
					t.Errorf("%d scripts of the session ran at once, want them parked", running)
				}
				reports := strings.Count(s.Gate.Log(), "no session of this gate was ever seen opened in")
				if want := map[bool]int{false: 1}[p.fits]; reports != want {
					t.Errorf("the log says %d times that no session was seen, want %d", reports, want)
				}
			})
		}
	}
}

// newSession has PHP make a session, and counts in it.
func (s *stack) newSession(t *testing.T, path string) string {
	t.Helper()
	r := s.get(path, "")
	r.mustBe(t, "1\n")
	id, _, _ := strings.Cut(r.header.Get("Set-Cookie"), ";")
	_, id, _ = strings.Cut(id, "=")
	return id
}
