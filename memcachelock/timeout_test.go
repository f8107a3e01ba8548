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
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// What a failure costs in time. The servers and the clock are in a synctest bubble, so a bound is exact, and no machine
// is too slow for it.

// bubble makes a store on n servers whose answers take modelLatency. shut has to be deferred.
func bubble(t *testing.T, n int) (servers []*fakeServer, store *memcachelock.Store, shut func()) {
	t.Helper()
	for range n {
		s := newFakeServer(modelLatency)
		s.age()
		servers = append(servers, s)
	}
	store, err := memcachelock.New(optionsOf(servers))
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

func optionsOf(servers []*fakeServer) memcachelock.Options {
	o := memcachelock.Options{Timeout: modelTimeout, Quorum: len(servers) > 1, MaxPollRate: pollRate}
	for i := range servers {
		o.Servers = append(o.Servers, netaddr.Addr{Network: "tcp", Address: strconv.Itoa(i)})
	}
	o.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		i, _ := strconv.Atoi(address)
		return servers[i].dial(ctx, 0)
	}
	return o
}

// pollRate is the MaxPollRate of a bubble.
const pollRate = 1000

// age gives the server an epoch that began long ago: no lease was lost lately, so there is no grace.
func (f *fakeServer) age() {
	f.set(func() { f.items[memcachelock.DefaultPrefix+"epoch"] = fakeItem{value: "1000 of the test"} })
}

// took asks for n locks at once, and returns how long the last answer took. All errors have to be want; where that is
// ErrStore, requests that found no slot may have waited in vain instead: that is no failure of the store.
func took(t *testing.T, m *sessionlock.Manager, n int, want error) time.Duration {
	t.Helper()
	start := time.Now()
	answers := make(chan error)
	for range n {
		key := newKey(t)
		go func() {
			l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{})
			if err == nil {
				l.Release() // before the answer: the caller may close the store
			}
			answers <- err
		}()
	}
	for range n {
		err := <-answers
		noSlot := errors.Is(want, sessionlock.ErrStore) && errors.Is(err, sessionlock.ErrMaxWait)
		if !errors.Is(err, want) && !noSlot {
			t.Errorf("got error %v, want %v", err, want)
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
					t.Errorf("100 requests took %v together, want a timeout, %v", got, modelTimeout)
				}
				before := s.Stats().Servers[0].RoundTrips
				if got := took(t, m, 1000, sessionlock.ErrStore); got != 0 {
					t.Errorf("1,000 requests took %v of a server that is known to hang, want nothing", got)
				}
				if got := s.Stats().Servers[0].RoundTrips - before; got != 0 {
					t.Errorf("%d questions to a server that is known to hang, want none", got)
				}
				servers[0].thaw()
				time.Sleep(time.Second)
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
					t.Errorf("round %d took %v while a server of three hangs, want an answer of the others, %v", i, got, modelLatency)
				}
			}
			servers[(sick+1)%3].freeze()
			if got := took(t, m, 100, sessionlock.ErrStore); got > modelTimeout {
				t.Errorf("100 requests took %v while two servers of three hang, want a timeout, %v", got, modelTimeout)
			}
		})
	}
}

// However many locks a gate waits for, what it asks of memcached is bounded; and where they are few, the lock does not
// lie free for long.
func TestWaitingIsBoundedAndTheHandOffShort(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		waits  int
		script time.Duration
		most   time.Duration // that the lock lies free
	}{
		"one, of a short script": {1, 20 * time.Millisecond, 2*time.Millisecond + 8*modelLatency},
		"one, of a long script":  {1, 8 * time.Second, 6*time.Millisecond + 8*modelLatency},
		"100":                    {100, 8 * time.Second, 300*time.Millisecond + 8*modelLatency},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				servers, here, shut := bubble(t, 1)
				defer shut()
				there, err := memcachelock.New(optionsOf(servers))
				if err != nil {
					t.Fatal(err)
				}
				defer there.Close()
				holder, waiter := sessionlock.NewManager(here), sessionlock.NewManager(there)
				time.Sleep(time.Second)
				var held []*sessionlock.Lock
				got := make(chan time.Time)
				for range c.waits {
					key := newKey(t)
					held = append(held, lockSoon(t, holder, key))
					go func() {
						l := lockSoon(t, waiter, key)
						got <- time.Now()
						l.Release()
					}()
				}
				time.Sleep(min(c.script, 5*time.Second))
				before, since := there.Stats().Servers[0].RoundTrips, time.Now()
				time.Sleep(c.script - min(c.script, 5*time.Second))
				asked, took := there.Stats().Servers[0].RoundTrips-before, time.Since(since)
				if most := (pollRate + float64(c.waits)) * took.Seconds(); float64(asked) > most*1.05 { // each waiter says once a second that it is still there
					t.Errorf("%d commands in %v, want %.0f at most", asked, took, most)
				}
				released := time.Now()
				for _, l := range held {
					l.Release()
				}
				for range c.waits {
					if free := (<-got).Sub(released); free > c.most {
						t.Errorf("the lock lay free for %v, want %v at most", free, c.most)
					}
				}
				time.Sleep(time.Second)
			})
		})
	}
}
