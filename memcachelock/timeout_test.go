package memcachelock_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// What a failure costs in time. The servers and the clock are those of a bubble, so a bound is exact, and no machine
// is too slow for it.

// bubble makes a store on n servers whose answers take modelLatency. shut has to be deferred.
func bubble(t *testing.T, n int) (servers []*fakeServer, store *memcachelock.Store, shut func()) {
	t.Helper()
	o := memcachelock.Options{Timeout: modelTimeout, Quorum: n > 1}
	for i := range n {
		servers = append(servers, newFakeServer(modelLatency))
		servers[i].age()
		o.Servers = append(o.Servers, memcachelock.Addr{Network: "tcp", Address: strconv.Itoa(i)})
	}
	o.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		i, _ := strconv.Atoi(address)
		return servers[i].dial(ctx, 0)
	}
	store, err := memcachelock.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return servers, store, func() {
		for _, s := range servers {
			s.thaw()
		}
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		for _, s := range servers {
			s.kill()
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
}

// age gives the server an epoch that began long ago: no lease was lost lately, so there is no grace.
func (f *fakeServer) age() {
	f.set(func() { f.items[memcachelock.DefaultPrefix+"epoch"] = fakeItem{value: "1000 of the test"} })
}

// took asks for n locks at once, and says when the last answer came. All errors have to be want.
func took(t *testing.T, m *sessionlock.Manager, n int, want error) time.Duration {
	t.Helper()
	start := time.Now()
	answers := make(chan error)
	for range n {
		key := newKey(t)
		go func() {
			l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{})
			if err == nil {
				defer l.Release()
			}
			answers <- err
		}()
	}
	for range n {
		if err := <-answers; !errors.Is(err, want) {
			t.Errorf("got error %v; want %v", err, want)
		}
	}
	return time.Since(start)
}

// Many requests meet a server that hangs: together they wait for one timeout, and those after them for none.
func TestAServerThatHangsCostsOneTimeout(t *testing.T) {
	t.Parallel()
	for name, met := range map[string]time.Duration{
		"while it is known":                          time.Second,
		"while its first answer is on its way":       modelLatency * 3 / 4,
		"just when its first answer has come":        modelLatency,
		"while an answer to a watch is on its way":   modelLatency + heartbeat + modelLatency*3/4,
		"while a question of the watch has not come": modelLatency + heartbeat + modelLatency/4,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				servers, s, shut := bubble(t, 1)
				defer shut()
				m := sessionlock.NewManager(s)
				time.Sleep(met)
				servers[0].freeze()
				if got := took(t, m, 100, sessionlock.ErrStore); got > modelTimeout {
					t.Errorf("100 requests took %v together; want a timeout, %v", got, modelTimeout)
				}
				before := s.Stats().Servers[0].Questions
				if got := took(t, m, 1000, sessionlock.ErrStore); got != 0 {
					t.Errorf("1,000 requests took %v of a server that is known to hang; want nothing", got)
				}
				if got := s.Stats().Servers[0].Questions - before; got != 0 {
					t.Errorf("%d questions to a server that is known to hang; want none", got)
				}
				servers[0].thaw()
				time.Sleep(heartbeat + modelTimeout)
				took(t, m, 1, nil)
			})
		})
	}
}

func TestAQuorumWaitsForNoServer(t *testing.T) {
	t.Parallel()
	for sick := range 3 {
		synctest.Test(t, func(t *testing.T) {
			servers, s, shut := bubble(t, 3)
			defer shut()
			m := sessionlock.NewManager(s)
			time.Sleep(time.Second)
			took(t, m, 10, nil) // the connections are there
			time.Sleep(time.Second)
			servers[sick].freeze()
			for i := range 5 {
				if got := took(t, m, 20, nil); got > 3*modelLatency {
					t.Errorf("round %d took %v while a server of three hangs; want an answer of the others, %v", i, got, modelLatency)
				}
			}
			servers[(sick+1)%3].freeze()
			if got := took(t, m, 100, sessionlock.ErrStore); got > modelTimeout {
				t.Errorf("100 requests took %v while two servers of three hang; want a timeout, %v", got, modelTimeout)
			}
		})
	}
}
