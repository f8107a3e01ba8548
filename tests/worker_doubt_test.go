package tests

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// TestWhatIsInDoubtKeepsTheLock: scripts whose handler does not lock, and whose worker shows something that looks as if
// they had closed their session, or had not opened it and PHP locked. No update is lost.
func TestWhatIsInDoubtKeepsTheLock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ini   bool   // php.ini has the handler already
		fresh bool   // no script had a session open before
		start string // PHP code that starts the session
		id    string // the session's id; empty: a new one
	}{
		"the application sets the handler late": {start: `usleep(400000);
			ini_set('session.save_handler', $ini['handler']); ini_set('session.save_path', $ini['path']);
			session_start();`},
		"another session comes before": {ini: true, start: `$own = $_COOKIE['PHPSESSID'];
			session_name('OTHER'); session_id('other' . getmypid()); session_start(['use_cookies' => 0]);
			usleep(50000); session_write_close(); usleep(200000);
			session_name('PHPSESSID'); session_id($own); session_start(['use_cookies' => 0]);`},
		"the id is set early": {ini: true, fresh: true, start: `session_id($_COOKIE['PHPSESSID']);
			usleep(400000); session_start();`},
		"the id is too long": {ini: true, id: strings.Repeat("x", 1500), start: `session_start();`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stack{Rig: newRig(t, "nginx", "php-fpm", "redis-server", "php-redis")}
			redis := rig.RedisSessions(rigtest.Start(t, s.Redis, rig.StoreOptions{}), false)
			o := stackOptions{PHP: rig.PHPOptions{Workers: 12}}
			o.PHP.INI = map[string]string{"session.save_path": t.TempDir()}
			if c.ini {
				o.PHP.INI = redis
			}
			code := "<?php\n$ini = ['handler' => '" + redis["session.save_handler"] + "', 'path' => '" +
				redis["session.save_path"] + "'];\n" + c.start + `
$count = ($_SESSION['count'] ?? 0) + 1;
usleep(60000);
$_SESSION['count'] = $count;
session_write_close();
echo $count;
`
			if err := os.WriteFile(filepath.Join(s.DocRoot, "doubt.php"), []byte(code), 0o644); err != nil {
				t.Fatal(err)
			}
			s.PHP = rigtest.Start(t, s.PHPFPM, o.PHP)
			s.Gate = startGate(t, s.Rig, rig.GateOptions{
				Upstream: s.PHP.Addr, Settings: "\n  lock { max_wait = \"55s\" }",
			})
			s.Site = &o.Site
			s.Site.FastCGI = s.Gate.Addr
			s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
			if !c.fresh {
				s.get("/work.php?ms=300", newSession()).mustBe(t, "1\n") // by this the gate learns what the workers show
			}
			session := c.id
			if session == "" {
				session = newSession()
			}
			var all []<-chan response
			for range 6 {
				all = append(all, s.begin("/doubt.php", session))
			}
			seen := make(map[string]bool)
			for _, r := range all {
				got := <-r
				if err := got.failure(); err != nil {
					t.Error(err)
				}
				seen[strings.TrimSpace(got.body)] = true
			}
			for n := range 6 {
				if want := strconv.Itoa(n + 1); !seen[want] {
					t.Errorf("no request counted %s: an update was lost; got %v", want, seen)
				}
			}
		})
	}
}
