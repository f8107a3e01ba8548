package supervisor

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

const (
	storeOne = "store [127.0.0.1:1]"
	storeTwo = "store [127.0.0.1:2]"
)

// TestGatesShareAStore, and a reload hands it on as long as it is the same.
func TestGatesShareAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := block("a", "unix:/a", shared), block("b", "unix:/b", shared)
		p := begin(w, a+stores(1)+block("c", "unix:/c"))
		p.mustReload(a + b + stores(1) + block("c", "unix:/c"))
		p.mustReload(block("z", "unix:/a", shared) + b + stores(1) + block("c", "unix:/c"))
		mustBe(t, "what is open", w.isOpen(), storeOne+", unix:/a, unix:/b, unix:/c")
		s := w.stores[0]
		for name, locks := range map[string]any{"z": s.locks, "b": s.locks, "c": p.State().Local} {
			if o := p.gateOf(name).last().Options; o.Locks != locks || o.SharedLocks != (name != "c") {
				t.Errorf("gate %s: got the locks %p, shared %v, want %p", name, o.Locks, o.SharedLocks, locks)
			}
		}
		for _, g := range p.State().Gates {
			if (g.Store == Store(s)) != (g.Name != "c") {
				t.Errorf("gate %s: got the store %v for operators", g.Name, g.Store)
			}
		}
		if got := strings.Join(s.users, " "); len(w.stores) != 1 || s.retired || got != "z b c" {
			t.Errorf("got %d stores, retired %v, with the users %q, want one with those of the last config", len(w.stores), s.retired, got)
		}
	})
}

// TestAStoreIsClosedAfterItsLastRequest, however many reloads that takes.
func TestAStoreIsClosedAfterItsLastRequest(t *testing.T) {
	one := block("a", "unix:/a", shared) + stores(1)
	for name, c := range map[string]struct {
		after string
		open  string // without the first store
	}{
		"other servers":       {block("a", "unix:/a", shared) + stores(2), storeTwo + ", unix:/a"},
		"another secret":      {block("a", "unix:/a", shared) + stores(1, `secret = "s"`), storeOne + "s, unix:/a"},
		"locks in process":    {block("a", "unix:/a"), "unix:/a"},
		"the gate is removed": {block("b", "unix:/b"), "unix:/b"},
		"the gate moves":      {block("a", "unix:/x", shared) + stores(2), storeTwo + ", unix:/x"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, one)
				first, second := p.gateOf("a").begin(), p.gateOf("a").begin()
				p.mustReload(c.after)
				p.mustReload(c.after)
				if !w.stores[0].retired {
					t.Error("the store is not retired")
				}
				first.end()
				synctest.Wait()
				if !slices.Contains(strings.Split(w.isOpen(), ", "), storeOne) {
					t.Errorf("got %q open, want the first store while a request uses it", w.isOpen())
				}
				second.end()
				synctest.Wait()
				mustBe(t, "what is open after the last request", w.isOpen(), c.open)
			})
		})
	}
}

// TestStoresComeAndGo: back to the servers before, while the store of the first config is still used.
func TestStoresComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two := block("a", "unix:/a", shared)+stores(1), block("a", "unix:/a", shared)+stores(2)
		p := begin(w, one)
		old := p.gateOf("a").begin()
		p.mustReload(two)
		between := p.gateOf("a").begin()
		p.mustReload(one)
		mustBe(t, "what is open", w.isOpen(), "2 "+storeOne+", "+storeTwo+", unix:/a")
		between.end()
		synctest.Wait()
		mustBe(t, "after the second", w.isOpen(), "2 "+storeOne+", unix:/a")
		old.end()
		synctest.Wait()
		mustBe(t, "after the first", w.isOpen(), storeOne+", unix:/a")
		if w.stores[2].retired {
			t.Error("the store that is used is retired")
		}
		p.signal(syscall.SIGTERM)
		mustBe(t, "at the end", w.isOpen(), "")
	})
}

// TestLocksThatMoveAreWarnedOf, with the reason.
func TestLocksThatMoveAreWarnedOf(t *testing.T) {
	const warning = "locks already held or waited for stay where they are"
	local, remote := block("a", "unix:/a"), block("a", "unix:/a", shared)
	const three = "memcached {\n servers = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]\n}\n"
	for name, c := range map[string]struct{ before, after, reason string }{
		"into memcached":                   {local, remote + stores(1), "lock store changed"},
		"out of memcached":                 {remote + stores(1), local, "lock store changed"},
		"to other servers":                 {remote + stores(1), remote + stores(2), "lock store changed"},
		"to a quorum":                      {remote + three, remote + strings.Replace(three, "servers", "quorum = true\n servers", 1), "lock store changed"},
		"to another order":                 {remote + three, remote + strings.NewReplacer("1:1", "1:2", "1:2", "1:1").Replace(three), "lock store changed"},
		"to another prefix":                {remote + stores(1), remote + stores(1, `key_prefix = "x:"`), "lock store changed"},
		"to another lease":                 {remote + stores(1), remote + stores(1, `lease = "20s"`), ""},
		"to a longer wait for its servers": {remote + stores(1), remote + stores(1, `timeout = "1s"`), ""},
		"to another secret":                {remote + stores(1), remote + stores(1, `secret = "s"`), "secret changed"},
		"to another realm":                 {local, block("a", "unix:/a", `realm = "r"`), "realm changed"},
		"to another name":                  {local, block("b", "unix:/a"), "realm changed"},
		"a gate that moves":                {local, block("a", "unix:/x", `realm = "r"`), ""},
		"nowhere":                          {remote + stores(1), block("a", "unix:/a", shared, "max_conns = 7") + stores(1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				p := begin(w, c.before)
				p.mustReload(c.after)
				if c.reason == "" {
					w.mustNotLog(warning)
				} else {
					w.mustLog(warning, c.reason)
				}
			})
		})
	}
}
