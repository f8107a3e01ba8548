package memcachelock_test

import (
	"context"
	"slices"
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

// BenchmarkHandOff hands a lock to and fro between two gates, and reports how long it lay free.
func BenchmarkHandOff(b *testing.B) {
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
		time.Sleep(10 * time.Millisecond) // a short script
		released := time.Now()
		l.Release()
		l = <-got
		took = append(took, time.Since(released))
	}
	l.Release()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

func benchStore(b *testing.B) *memcachelock.Store {
	f := newFleet(b, 1)
	s := f.store(b, f.options())
	lockSoon(b, sessionlock.NewManager(s), newKey(b)).Release()
	b.ResetTimer()
	return s
}
