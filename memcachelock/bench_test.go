package memcachelock_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Each of these talks to memcached on the same machine: they say what the commands and their number cost, and
// nothing of a network.

func BenchmarkUncontendedLock(b *testing.B) {
	m := sessionlock.NewManager(benchStore(b))
	b.RunParallel(func(pb *testing.PB) {
		key := newKey(b)
		for n := 0; pb.Next(); n++ {
			key[15], key[14], key[13] = byte(n), byte(n>>8), byte(n>>16) // not to wait for its own release
			l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{MaxWait: time.Second})
			if err != nil {
				b.Error(err)
				return
			}
			l.Release()
		}
	})
}

// BenchmarkHandOff hands a lock to and fro between two gates, and reports how long it lay free. How long the scripts
// are that hold it says how often a waiting gate asks.
func BenchmarkHandOff(b *testing.B) {
	for _, script := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second} {
		b.Run(script.String(), func(b *testing.B) {
			f := newFleet(b, 1)
			key := newKey(b)
			var gates []*sessionlock.Manager
			for range 2 {
				gates = append(gates, sessionlock.NewManager(f.store(b, f.options())))
			}
			l := lockSoon(b, gates[0], key)
			var took []time.Duration
			for i := range b.N {
				next := gates[(i+1)%2]
				got := make(chan *sessionlock.Lock)
				go func() { got <- lockSoon(b, next, key) }()
				time.Sleep(script)
				released := time.Now()
				l.Release()
				l = <-got
				took = append(took, time.Since(released))
			}
			l.Release()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkWaiting has a gate wait for many sessions that another one holds, and reports what that asks of memcached.
func BenchmarkWaiting(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			f := newFleet(b, 1)
			holder := sessionlock.NewManager(f.store(b, f.options()))
			store := f.store(b, f.options())
			waiter := sessionlock.NewManager(store)
			ctx, cancel := context.WithCancel(context.Background())
			var held []*sessionlock.Lock
			var all sync.WaitGroup
			for range n {
				key := newKey(b)
				held = append(held, lockSoon(b, holder, key))
				all.Go(func() { _, _ = waiter.Acquire(ctx, key, nil, sessionlock.Policy{MaxWait: time.Hour}) })
			}
			time.Sleep(time.Second) // until they know how many they are
			begun, before := time.Now(), store.Stats().Servers[0].RoundTrips
			for b.Loop() {
				time.Sleep(time.Second)
			}
			asked := store.Stats().Servers[0].RoundTrips - before
			b.ReportMetric(float64(asked)/time.Since(begun).Seconds(), "commands/s")
			cancel()
			all.Wait()
			for _, l := range held {
				l.Release()
			}
		})
	}
}

func benchStore(b *testing.B) *memcachelock.Store {
	f := newFleet(b, 1)
	s := f.store(b, f.options())
	lockSoon(b, sessionlock.NewManager(s), newKey(b)).Release()
	b.ResetTimer()
	return s
}
