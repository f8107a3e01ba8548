package gate

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

// withStore gives the gate locks in a store that a test can make fail.
func withStore(ttl time.Duration, meant OnStoreFailure) (edit func(*Options), store *locktest.Gate) {
	store = locktest.NewFake(ttl).Gate()
	locks := sessionlock.NewManager(store)
	return func(o *Options) {
		o.Locks = locks
		o.SharedLocks, o.Policy.OnStoreFailure = true, meant
	}, store
}

func TestWhatAStoreThatFailsMeansIsForThePolicy(t *testing.T) {
	t.Run("local: the session has its order within the process", func(t *testing.T) {
		edit, store := withStore(0, OnStoreFailureLocal)
		store.Fail(errors.New("down"))
		s := newStand(t, edit)
		first := s.ask(session("abc")...)
		running := s.php.next()
		if got := running.params["FPM_GATE_LOCK"]; got != "local" {
			t.Errorf("got the lock %q, want it local", got)
		}
		second := s.ask(session("abc")...)
		s.php.none(t)
		running.end("\r\n\r\nfirst")
		first.want("first")
		s.php.next().end("\r\n\r\nsecond")
		second.want("second")
		if got := s.Stats(); got.Local != 2 || got.Acquired != 2 || got.Lost != 0 {
			t.Errorf("got %+v, want two locks that are held locally, and none lost", got)
		}
	})
	t.Run("reject: no script runs without the lock", func(t *testing.T) {
		edit, store := withStore(0, OnStoreFailureReject)
		store.Fail(errors.New("down"))
		s := newStand(t, edit)
		s.ask(session("abc")...).wantStatus("503 Service Unavailable")
		s.php.none(t)
		if got := s.Stats(); got.Rejected != 1 || got.Local != 0 {
			t.Errorf("got %+v, want one rejected", got)
		}
	})
	t.Run("pass: it runs without", func(t *testing.T) {
		edit, store := withStore(0, OnStoreFailurePass)
		store.Fail(errors.New("down"))
		s := newStand(t, edit)
		b := s.ask(session("abc")...)
		script := s.php.next()
		if got := script.params["FPM_GATE_LOCK"]; got != "passed" {
			t.Errorf("got the lock %q, want it passed", got)
		}
		script.end("\r\n\r\nok")
		b.want("ok")
	})
}

// The lock that a store can renew no more is said to be lost, and goes on.
func TestLockGoesOnLocallyAndSaysSo(t *testing.T) {
	edit, store := withStore(2*time.Second, OnStoreFailureLocal)
	s := newStand(t, edit)
	first := s.ask(session("abc")...)
	running := s.php.next()
	store.Fail(errors.New("down"))
	await(t, "the loss is said", func() bool { return strings.Contains(s.log.String(), "holding the lock on this host only") })
	second := s.ask(session("abc")...)
	s.php.none(t)
	running.end("\r\n\r\nfirst")
	first.want("first")
	s.php.next().end("\r\n\r\nsecond")
	second.want("second")
	await(t, "two locks are counted as held locally, one of which had a lease", func() bool {
		got := s.Stats()
		return got.Local == 2 && got.Lost == 1
	})
}

// A lock may become a local one, or get its lease, while its request waits for a connection: PHP sees what it is.
func TestPHPSeesWhatTheLockHasBecome(t *testing.T) {
	for _, c := range []struct{ before, now string }{{"held", "local"}, {"local", "held"}} {
		t.Run(c.before+", then "+c.now, func(t *testing.T) {
			t.Parallel()
			edit, store := withStore(2*time.Second, OnStoreFailureLocal)
			var locks *sessionlock.Manager
			s := newStand(t, func(o *Options) {
				edit(o)
				o.Upstream.MaxConnections = 1
				locks = o.Locks
			})
			fail := map[string]error{"local": errors.New("down")}
			store.Fail(fail[c.before])
			first := s.ask()
			running := s.php.next()
			second := s.ask(session("abc")...)
			key := sessionlock.KeyFor(nil, "test", phpsession.LockName([]byte("abc")))
			is := func(status string) func() bool {
				return func() bool {
					for _, l := range locks.Snapshot() {
						return l.Key == key && l.Held && l.Local == (status == "local")
					}
					return false
				}
			}
			await(t, "the lock is "+c.before, is(c.before))
			store.Fail(fail[c.now])
			await(t, "the lock is "+c.now, is(c.now))
			running.end("\r\n\r\nfirst")
			first.want("first")
			script := s.php.next()
			if got := script.params["FPM_GATE_LOCK"]; got != c.now {
				t.Errorf("PHP sees the lock %s, want %s", got, c.now)
			}
			script.end("\r\n\r\nsecond")
			second.want("second")
		})
	}
}
