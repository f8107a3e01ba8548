package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

func TestLocksShowWhoHoldsAndWhoWaits(t *testing.T) {
	s := newStand(t)
	c := s.listen("unix")
	if page := get[LocksPage](c, "/locks"); page.Host != "web-1" || page.Locks == nil || len(page.Locks) != 0 {
		t.Errorf("got %+v, want none of host web-1", page)
	}
	held := s.hold(keys[0], "/export.php")
	s.wait(keys[0], "/poll.php")
	s.wait(keys[0], "/cart.php")
	s.hold(keys[2], "/other.php")

	page := get[LocksPage](c, "/locks")
	if len(page.Locks) != 2 {
		t.Fatalf("got %d locks, want 2", len(page.Locks))
	}
	l := page.Locks[0]
	wantHolder := Request{Gate: "www", Route: "api", Method: "POST", Path: "/export.php", Script: "/srv/export.php", Host: "web-1"}
	if l.Key != keys[0].String() || l.Realm != "shop" || l.Gate != "www" || !l.Held || l.Holder != wantHolder {
		t.Errorf("got %+v", l)
	}
	if l.Since != timeText(held.Since()) || l.Expires != timeText(held.Expires()) {
		t.Errorf("got since %s and expires %s, want %v and %v", l.Since, l.Expires, held.Since(), held.Expires())
	}
	if len(l.Waiters) != 2 || l.Waiters[0].Path != "/poll.php" || l.Waiters[1].Path != "/cart.php" {
		t.Errorf("got waiters %+v, want them in their order", l.Waiters)
	}
	at, err := time.Parse(time.RFC3339Nano, page.At)
	if got, want := l.HeldMS, at.Sub(held.Since()).Milliseconds(); err != nil || got != want {
		t.Errorf("got held for %d ms and error %v, want %d", got, err, want)
	}
	if w := l.Waiters[0]; w.WaitedMS > l.HeldMS || w.Since < l.Since {
		t.Errorf("got waiter %+v of %+v, want it to have come later", w, l)
	}
	if last := page.Locks[1]; last.Waiters == nil || len(last.Waiters) != 0 {
		t.Errorf("got waiters %v, want an empty list", last.Waiters)
	}
}

func TestLocksTellWhoHoldsThemElsewhere(t *testing.T) {
	s := newStand(t)
	elsewhere := sessionlock.NewManager(sessionlock.NewLocal())
	s.change(func(v *Served) { v.Locks = append([]Locks{{elsewhere, nil}}, v.Locks...) })
	since := time.Now().Add(-time.Hour)
	s.far.holder = sessionlock.RemoteHolder{Gate: "www", Host: "web-2", Since: since}
	l := s.heldElsewhere(keys[0])
	c := s.listen("unix")
	got := get[LocksPage](c, "/locks").Locks[0]
	if got.Held || got.Holder != (Request{Gate: "www", Host: "web-2"}) || got.Gate != "www" || got.Realm != "shop" {
		t.Errorf("got %+v, want it to be held on web-2", got)
	}
	if got.HeldMS < time.Hour.Milliseconds() || got.Since != timeText(since) || got.Expires != "" {
		t.Errorf("got %+v, want it to be held for an hour", got)
	}
	if status, text := c.ask("DELETE", "/locks/"+keys[0].String(), ""); status != http.StatusConflict || !strings.Contains(text, "break it there") {
		t.Errorf("got status %d and %s, want to be sent to web-2", status, text)
	}
	s.far.failure = errors.New("no answer")
	if got := get[LocksPage](c, "/locks").Locks[0]; got.Held || got.Holder != (Request{}) || got.Since != "" {
		t.Errorf("got %+v from a store that fails, want no holder", got)
	}
	l.Release()
}

// heldElsewhere makes a lock be waited for here, that another manager of the same store has.
func (s *stand) heldElsewhere(key sessionlock.Key) *sessionlock.Lock {
	s.t.Helper()
	store := sessionlock.NewLocal()
	other := sessionlock.NewManager(store)
	s.locks = sessionlock.NewManager(store)
	s.change(func(v *Served) { v.Locks[len(v.Locks)-1].Manager = s.locks })
	l, err := other.Acquire(s.t.Context(), key, requestFor("/far.php"), sessionlock.Policy{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.wait(key, "/near.php")
	return l
}

func TestManyLocksThatAreHeldElsewhereAskNotForAll(t *testing.T) {
	s := newStand(t)
	store := sessionlock.NewLocal()
	other := sessionlock.NewManager(store)
	s.locks = sessionlock.NewManager(store)
	s.change(func(v *Served) { v.Locks[0].Manager = s.locks })
	for i := range 2 * maxLookups {
		key := sessionlock.Key{1, byte(i)}
		if _, err := other.Acquire(t.Context(), key, requestFor("/far.php"), sessionlock.Policy{}); err != nil {
			t.Fatal(err)
		}
		s.wait(key, "/near.php")
	}
	if got := len(s.Admin.locks.page(t.Context()).Locks); got != 2*maxLookups || s.far.lookups != maxLookups {
		t.Errorf("got %d locks and %d lookups, want all and %d", got, s.far.lookups, maxLookups)
	}
}

func TestBreakTakesAnUnambiguousBegin(t *testing.T) {
	for _, c := range []struct {
		name, key string
		status    int
		says      string
		broken    int // of keys; -1: none
	}{
		{"the whole key", keys[0].String(), 200, "", 0},
		{"as logs show it", keys[2].Short(), 200, "", 2},
		{"four digits", "1122", 200, "", 2},
		{"in capitals", strings.ToUpper(keys[0].String()), 200, "", 0},
		{"of two locks", "abcd", 409, "several locks", -1},
		{"of none", "ffff", 404, "no lock ffff", -1},
		{"too short", "112", 400, "4 to 32", -1},
		{"too long", keys[0].String() + "0", 400, "4 to 32", -1},
		{"no key", "index.php", 400, "hexadecimal", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t)
			var locks []*sessionlock.Lock
			for i, key := range keys {
				locks = append(locks, s.hold(key, fmt.Sprintf("/%d.php", i)))
			}
			status, text := s.listen("unix").ask("DELETE", "/locks/"+c.key, "")
			if status != c.status || !strings.Contains(text, c.says) {
				t.Errorf("got status %d and %q, want %d and %q", status, text, c.status, c.says)
			}
			for i, l := range locks {
				want := error(nil)
				if i == c.broken {
					want = sessionlock.ErrBroken
				}
				if got := l.Err(); got != want {
					t.Errorf("lock %d: got %v, want %v", i, got, want)
				}
			}
			if c.name == "of two locks" && (!strings.Contains(text, keys[0].String()) || !strings.Contains(text, keys[1].String())) {
				t.Errorf("got %q, want both keys", text)
			}
			by := fmt.Sprintf("client=\"uid %d, pid %d\"", os.Getuid(), os.Getpid())
			if logged := strings.Contains(s.log.String(), by); logged != (c.broken >= 0) {
				t.Errorf("got log %q", s.log.String())
			}
		})
	}
}

func TestABrokenLockGoesToTheNextWaiter(t *testing.T) {
	s := newStand(t)
	s.hold(keys[0], "/export.php")
	next := s.wait(keys[0], "/poll.php")
	if status, text := s.listen("tcp").ask("DELETE", "/locks/"+keys[0].Short(), ""); status != http.StatusOK {
		t.Fatalf("got status %d and %s", status, text)
	}
	select {
	case err := <-next:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("the waiter still waits")
	}
}

// The lock may change hands after an operator has looked at it. It may also do so while the request is served, which
// first reads the holders of other locks from the store. The script that has it then is not the one that is meant.
func TestOnlyTheHoldThatIsMeantIsBroken(t *testing.T) {
	key := keys[2].String()
	for name, c := range map[string]struct {
		method, path string
		early        bool // the lock changes hands before the request comes
		status       int
		broken       bool
	}{
		"a lock to be broken":       {"DELETE", "/locks/" + key, false, 404, false},
		"a script to be ended":      {"DELETE", "/locks/" + key + "?terminate=true", false, 404, false},
		"a question":                {"GET", "/locks/" + key + "/why", false, 404, false},
		"whichever hold it is":      {"DELETE", "/locks/" + key, true, 200, true},
		"one that has ended before": {"DELETE", "/locks/" + key + "?since=", true, 404, false},
		"its script":                {"DELETE", "/locks/" + key + "?terminate=true&since=", true, 404, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t)
			s.heldElsewhere(keys[0]) // so the request reads the store
			first, client := s.hold(keys[2], "/export.php"), s.listen("unix")
			var second *sessionlock.Lock
			change := sync.OnceFunc(func() {
				first.Release()
				second = s.hold(keys[2], "/checkout.php")
			})
			path := c.path
			if strings.HasSuffix(path, "since=") {
				path += url.QueryEscape(timeText(first.Since()))
			}
			if c.early {
				change()
			} else {
				s.far.during = change
			}
			status, text := client.ask(c.method, path, "")
			if status != c.status {
				t.Errorf("got status %d and %s, want %d", status, text, c.status)
			}
			if broken := second.Err() != nil; broken != c.broken {
				t.Errorf("the lock of the next request is broken: %v, want %v", broken, c.broken)
			}
		})
	}
}

// A hold is broken by its start, as /locks has it.
func TestTheHoldThatWasSeenIsBroken(t *testing.T) {
	s := newStand(t)
	l, c := s.hold(keys[0], "/export.php"), s.listen("unix")
	seen := get[LocksPage](c, "/locks").Locks[0]
	status, text := c.ask("DELETE", "/locks/"+seen.Key+"?since="+url.QueryEscape(seen.Since), "")
	if status != http.StatusOK || l.Err() != sessionlock.ErrBroken {
		t.Errorf("got status %d, %s and lock error %v, want it broken", status, text, l.Err())
	}
}

func TestTheLockOfNoSessionIsNotShown(t *testing.T) {
	s := newStand(t)
	s.hold(sessionlock.Key{}, "/")
	if got := s.Admin.locks.page(t.Context()).Locks; len(got) != 0 {
		t.Errorf("got %+v, want none", got)
	}
}
