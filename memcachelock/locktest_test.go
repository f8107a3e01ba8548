package memcachelock_test

import (
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

func TestOneServerKeepsThePromises(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	locktest.Run(t, locktest.Config{
		New:       func(t *testing.T) sessionlock.Store { return f.store(t, f.options()) },
		Tolerance: tolerance,
		Drop:      func(t *testing.T, key sessionlock.Key) { f.remove(t, key, f.servers...) },
	})
}

func TestAQuorumKeepsThePromises(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	locktest.Run(t, locktest.Config{
		New:       func(t *testing.T) sessionlock.Store { return f.store(t, f.quorum()) },
		Tolerance: tolerance,
		Drop:      func(t *testing.T, key sessionlock.Key) { f.remove(t, key, f.servers...) },
	})
}

func TestSeveralServersKeepThePromises(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	locktest.Run(t, locktest.Config{
		New:       func(t *testing.T) sessionlock.Store { return f.store(t, f.options()) },
		Tolerance: tolerance,
	})
}

// tolerance is what a busy machine may add: it keeps gates, memcached and its clock waiting.
const tolerance = 10 * time.Second

// timeout is longer than the default, which a noisy machine could break.
const timeout = 2 * time.Second

// fleet is some memcached that the stores of a test share.
type fleet struct {
	servers []*rig.Server
}

func newFleet(t testing.TB, n int, args ...string) *fleet {
	t.Helper()
	f := startFleet(t, n, args...)
	f.age(t)
	return f
}

// startFleet is newFleet of servers that the test does not talk to.
func startFleet(t testing.TB, n int, args ...string) *fleet {
	t.Helper()
	r := rigtest.New(t, "memcached")
	f := new(fleet)
	for range n {
		f.servers = append(f.servers, rigtest.Start(t, r.Memcached, rig.StoreOptions{Args: args}))
	}
	return f
}

// age gives the servers an epoch that began long ago: no lease was lost lately, so there is no grace.
func (f *fleet) age(t testing.TB) {
	t.Helper()
	const epoch = "1000 of the test"
	for _, s := range f.servers {
		talkTo(t, s).ask("set %sepoch 0 0 %d\r\n%s", memcachelock.DefaultPrefix, len(epoch), epoch)
	}
}

func (f *fleet) options() memcachelock.Options {
	o := memcachelock.Options{Lease: memcachelock.MinLease, Timeout: timeout, Gate: "www", Host: "web 1"}
	for _, s := range f.servers {
		o.Servers = append(o.Servers, s.Addr)
	}
	return o
}

func (f *fleet) quorum() memcachelock.Options {
	o := f.options()
	o.Quorum = true
	return o
}

// store makes a store that ends with the test.
func (f *fleet) store(t testing.TB, o memcachelock.Options) *memcachelock.Store {
	t.Helper()
	s, err := memcachelock.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}
