package tests

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// lockKey is where a handler keeps its lock of a session, and how long that lives on.
type lockKey struct {
	store *rig.Server
	ask   string // the request for the seconds that are left; %s: the session's id
	reply string // of which the seconds are read
	gone  string // if the key is not there
}

// ttl returns the seconds that the lock has left: -1 if it does not expire, -2 if it is not there.
func (k lockKey) ttl(t *testing.T, session string) (seconds int) {
	t.Helper()
	nc, err := net.Dial(k.store.Addr.Network, k.store.Addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	if _, err := fmt.Fprintf(nc, k.ask+"\r\n", session); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(nc).ReadString('\n')
	if strings.HasPrefix(line, k.gone) {
		return -2
	}
	if _, scanErr := fmt.Sscanf(line, k.reply, &seconds); err != nil || scanErr != nil {
		t.Fatalf("got %q (%v, %v)", line, err, scanErr)
	}
	return seconds
}

// TestTheLockKeyOfAWorkerThatWasEnded: PHP's handler has set when it expires, by its own setting or else by the time
// limit at session_start(). The gate removes one of php-memcached's, if it knows where it is. Then the session works.
func TestTheLockKeyOfAWorkerThatWasEnded(t *testing.T) {
	t.Parallel()
	needPtrace(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	const forever, gone = -1, -2
	for name, c := range map[string]struct {
		handler string
		ini     map[string]string
		limit   int  // the script's time limit
		known   bool // handler and save_path are in the gate's config
		ttl     int  // of the key that is left
	}{
		"redis, no limit at all":        {"redis", nil, 0, false, forever},
		"redis, a time limit":           {"redis", nil, 300, false, 300},
		"redis, lock_expire":            {"redis", map[string]string{"redis.session.lock_expire": "3"}, 300, false, 3},
		"memcached, no limit at all":    {"memcached", nil, 0, false, forever},
		"memcached, a time limit":       {"memcached", nil, 300, false, 300},
		"memcached, lock_expire":        {"memcached", map[string]string{"memcached.sess_lock_expire": "3"}, 300, false, 3},
		"memcached that the gate knows": {"memcached", nil, 0, true, gone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &stack{Rig: newRig(t, "nginx", "php-fpm", "redis-server", "php-redis", "memcached", "php-memcached")}
			var key lockKey
			var ini map[string]string
			if c.handler == "redis" {
				key = lockKey{rigtest.Start(t, s.Redis, rig.StoreOptions{}), "TTL PHPREDIS_SESSION:%s_LOCK", ":%d", ":-2"}
				ini = rig.RedisSessions(key.store, true)
			} else {
				key = lockKey{rigtest.Start(t, s.Memcached, rig.StoreOptions{}), "mg memc.sess.key.lock.%s t", "HD t%d", "EN"}
				ini = rig.MemcachedSessions(key.store)
			}
			maps.Copy(ini, c.ini)
			settings := "lock {\n max_wait = \"55s\"\n expiry = \"1s\"\n on_expiry = \"terminate\"\n terminate_grace = \"200ms\"\n }"
			if c.known {
				settings += fmt.Sprintf("\n  session {\n handler = %q\n save_path = %q\n }", c.handler, ini["session.save_path"])
			}
			s.PHP = rigtest.Start(t, s.PHPFPM, rig.PHPOptions{INI: ini})
			s.Gate = startGate(t, s.Rig, rig.GateOptions{Upstream: s.PHP.Addr, Settings: settings})
			s.Site = &rig.Site{FastCGI: s.Gate.Addr}
			s.Web = rigtest.Start(t, s.Nginx, rig.NginxOptions{Sites: []*rig.Site{s.Site}})

			session := newSession()
			s.get("/work.php", session).mustBe(t, "1\n")
			port := silent.Addr().(*net.TCPAddr).Port
			script := s.begin(fmt.Sprintf("/stuck.php?how=read&mark=left&limit=%d&port=%d", c.limit, port), session)
			awaitMark(t, s.Rig, "left.started")
			opened := time.Now()
			if r := <-script; r.status != 504 {
				t.Fatalf("the stuck request was answered %d %v, want 504", r.status, r.err)
			}
			ended := time.Now()
			ttl := key.ttl(t, session)
			if low := c.ttl - int(ended.Sub(opened).Seconds()) - 2; ttl > c.ttl || ttl < low && c.ttl > 0 || ttl < 0 && ttl != c.ttl && c.ttl != 3 {
				t.Errorf("the lock has %d s left, want %d or a little less", ttl, c.ttl)
			}
			first := s.get("/work.php", session)
			t.Logf("the lock has %d s left; the next request takes %v and counts %q", ttl,
				time.Since(ended).Round(time.Millisecond), first.body)
			if c.ttl == forever || c.ttl == 300 {
				if s.counts(session) {
					t.Error("the session works although its lock is there")
				}
				return
			}
			eventually(t, "the session works again", func() bool { return s.counts(session) })
			t.Logf("the session works %v after the end of the worker", time.Since(ended).Round(10*time.Millisecond))
		})
	}
}

// counts reports whether a session, which has a count, is read and written.
func (s *stack) counts(session string) bool {
	var counts [2]int
	for i := range counts {
		if _, err := fmt.Sscan(s.get("/work.php", session).body, &counts[i]); err != nil {
			return false
		}
	}
	return counts[0] > 1 && counts[1] == counts[0]+1
}
