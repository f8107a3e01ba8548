package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// sessionHandler is a way in which PHP keeps its sessions.
type sessionHandler struct {
	programs []string
	locks    bool                                         // PHP locks the session itself
	config   string                                       // of the gate's session block, with its save_path
	start    func(*testing.T, *rig.Rig) map[string]string // returns PHP's settings
	database bool                                         // they have a MariaDB, whose start takes seconds: unix sockets will do
}

// sessionHandlers are all of them: the gate has to see PHP close a session with each.
var sessionHandlers = map[string]sessionHandler{
	"files": {nil, true, "", func(t *testing.T, _ *rig.Rig) map[string]string {
		sessions := filepath.Join(t.TempDir(), "sessions")
		if err := os.Mkdir(sessions, 0o700); err != nil {
			t.Fatal(err)
		}
		return map[string]string{"session.save_path": sessions}
	}, false},
	"memcached": {[]string{"memcached", "php-memcached"}, true, "handler = \"memcached\"\nsave_path = %q", func(t *testing.T, r *rig.Rig) map[string]string {
		ini := rig.MemcachedSessions(rigtest.Start(t, r.Memcached, rig.StoreOptions{}))
		ini["memcached.sess_lock_retries"] = "10000"
		ini["memcached.sess_lock_wait_min"], ini["memcached.sess_lock_wait_max"] = "5", "5"
		return ini
	}, false},
	"redis": {[]string{"redis-server", "php-redis"}, false, "", func(t *testing.T, r *rig.Rig) map[string]string {
		return rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), false)
	}, false},
	"redis with locks": {[]string{"redis-server", "php-redis"}, true, "", func(t *testing.T, r *rig.Rig) map[string]string {
		ini := rig.RedisSessions(rigtest.Start(t, r.Redis, rig.StoreOptions{}), true)
		ini["redis.session.lock_retries"], ini["redis.session.lock_wait_time"] = "10000", "5000"
		return ini
	}, false},
	"the application's own": {nil, false, "", func(_ *testing.T, r *rig.Rig) map[string]string {
		return map[string]string{"auto_prepend_file": filepath.Join(r.DocRoot, "userhandler.php")}
	}, false},
	"PDO on MariaDB": {[]string{"mariadbd", "pdo-mysql"}, false, "", func(t *testing.T, r *rig.Rig) map[string]string {
		db := rigtest.Start(t, r.MariaDB, rig.MariaDBOptions{SQL: []string{
			"create or replace user visitor@localhost identified by 'secret'", "grant all on *.* to visitor@localhost",
			"create database app", "create table app.sessions (id varchar(128) primary key, data blob)",
		}})
		return map[string]string{
			"auto_prepend_file":        filepath.Join(r.DocRoot, "pdohandler.php"),
			"pdo_mysql.default_socket": db.Addr.Address,
		}
	}, true},
}

// onWorkers runs a test with each handler, on a unix socket and over TCP. The gate's config says nothing of sessions, but
// where the lock of one that a killed worker leaves behind is kept.
func onWorkers(t *testing.T, o stackOptions, test func(t *testing.T, s *stack, h sessionHandler)) {
	t.Parallel()
	for name, h := range sessionHandlers {
		for _, network := range []string{"unix", "tcp"} {
			if h.database && network == "tcp" {
				continue
			}
			t.Run(name+" "+network, func(t *testing.T) {
				t.Parallel()
				o := o
				s := &stack{Rig: newRig(t, append(h.programs, "nginx", "php-fpm")...)}
				o.PHP.INI = h.start(t, s.Rig)
				if network == "tcp" {
					o.PHP.Listen = rig.TCP
				}
				s.PHP = rigtest.Start(t, s.PHPFPM, o.PHP)
				o.Gate.Upstream = s.PHP.Addr
				if !strings.Contains(o.Gate.Settings, "lock {") {
					o.Gate.Settings += "\n  lock { max_wait = \"55s\" }" // no request shall give up because the machine is slow
				}
				if h.config != "" {
					o.Gate.Settings += "\n  session {\n" + fmt.Sprintf(h.config, o.PHP.INI["session.save_path"]) + "\n  }"
				}
				s.Gate = startGate(t, s.Rig, o.Gate)
				s.Site = &o.Site
				s.Site.FastCGI = s.Gate.Addr
				s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})
				s.get("/work.php?ms=300", newSession()).mustBe(t, "1\n") // by this the gate learns what the workers show
				test(t, s, h)
			})
		}
	}
}

// TestANextRequestEntersWhenTheSessionIsClosed: a request waits already when a script gives its session back, by every
// way in which PHP programmers do. It goes on while the script works. Nothing is lost of the updates.
func TestANextRequestEntersWhenTheSessionIsClosed(t *testing.T) {
	o := stackOptions{PHP: rig.PHPOptions{Workers: 12}, Gate: rig.GateOptions{Settings: queueRoutes(1)}}
	onWorkers(t, o, func(t *testing.T, s *stack, h sessionHandler) {
		for how, after := range map[string]int{"close": 2, "abort": 1, "renew": 0, "replace": 2, "finish": 2, "destroy": 0} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				session := newSession()
				s.get("/work.php", session).mustBe(t, "1\n")
				script := s.begin("/giveback.php?mark="+how+"&how="+how, session)
				awaitMark(t, s.Rig, how+".open")
				next := s.begin("/work.php", session)
				s.awaitQueue(t, session, 1)
				mark(t, s.Rig, how+".give")
				if how == "finish" {
					(<-script).mustBe(t, "given back\n")
					awaitMark(t, s.Rig, "finish.finished")
					s.awaitQueue(t, session, 1) // the session is open still
					mark(t, s.Rig, "finish.close")
				}
				// The id may change before the first look: then the lock lasts. Those that wait for a session that was
				// destroyed wait for the response, which may set another id.
				lasts := strings.HasPrefix(how, "re") || how == "destroy"
				if lasts {
					letGo(t, s.Rig, how)
				}
				(<-next).mustBe(t, fmt.Sprintf("%d\n", after+1))
				if !lasts {
					letGo(t, s.Rig, how) // it works still
				}
				if how != "finish" {
					r := <-script
					r.mustBe(t, "given back\n")
					if cookie := r.header.Get("Set-Cookie"); strings.HasPrefix(how, "re") != strings.HasPrefix(cookie, "PHPSESSID=") {
						t.Errorf("got cookie %q", cookie)
					}
				}
				s.get("/count.php", session).mustBe(t, fmt.Sprintf("%d\n", after+1))
			})
		}
	})
}

// mark makes a mark that a script waits for.
func mark(t testing.TB, r *rig.Rig, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.DocRoot, "marks", name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestASessionThatIsClosedHoldsNobodyUp: whatever handler PHP keeps its sessions with, and however a script gives its
// session back, the next request goes on while the script works. No update is lost.
func TestASessionThatIsClosedHoldsNobodyUp(t *testing.T) {
	onWorkers(t, stackOptions{PHP: rig.PHPOptions{Workers: 9}}, func(t *testing.T, s *stack, h sessionHandler) {
		for how, count := range map[string]int{"close": 1, "abort": 0, "read": 0} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				session := newSession()
				s.get("/work.php?ms=20", session).mustBe(t, "1\n")
				export := s.export(how, session)
				awaitMark(t, s.Rig, how+".closed")
				var slowest time.Duration
				want := 1 + count
				for range 10 {
					start := time.Now()
					if r := s.get("/count.php", session); r.failure() != nil {
						t.Fatalf("a poll of the progress: %v", r.failure())
					}
					slowest = max(slowest, time.Since(start))
				}
				t.Logf("the slowest of 10 polls took %v", slowest.Round(100*time.Microsecond))
				s.get("/work.php", session).mustBe(t, fmt.Sprintf("%d\n", want+1))
				letGo(t, s.Rig, how) // it works still
				(<-export).mustBe(t, "export\n")
				s.get("/count.php", session).mustBe(t, fmt.Sprintf("%d\n", want+1))
			})
		}
	})
}

// TestASessionThatIsOpenedAgainIsReported, with every handler: the script holds no lock of the gate's then, though the
// next request has gone on in between. Nothing is lost of what follows each other.
func TestASessionThatIsOpenedAgainIsReported(t *testing.T) {
	o := stackOptions{PHP: rig.PHPOptions{Workers: 12}, Gate: rig.GateOptions{Settings: queueRoutes(1)}}
	onWorkers(t, o, func(t *testing.T, s *stack, h sessionHandler) {
		session := newSession()
		s.get("/work.php", session).mustBe(t, "1\n")
		script := s.begin("/giveback.php?mark=again&how=again", session)
		awaitMark(t, s.Rig, "again.open")
		next := s.begin("/work.php", session)
		s.awaitQueue(t, session, 1)
		mark(t, s.Rig, "again.give")
		(<-next).mustBe(t, "3\n")
		letGo(t, s.Rig, "again")
		awaitMark(t, s.Rig, "again.again")
		awaitLog(t, s.Gate.Server, "opened its session again")
		mark(t, s.Rig, "again.end")
		(<-script).mustBe(t, "given back\n")
		s.get("/count.php", session).mustBe(t, "4\n")
	})
}
