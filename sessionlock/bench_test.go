package sessionlock_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// The benchmarks measure the manager on the local store, without a request around it: go test -bench . ./sessionlock

// asInTheGate is the gate's default policy.
var asInTheGate = sessionlock.Policy{MaxWait: 10 * time.Second, Expiry: time.Minute, MaxWaiters: 64}

func acquire(b *testing.B, m *sessionlock.Manager, key sessionlock.Key, p sessionlock.Policy) *sessionlock.Lock {
	l, err := m.Acquire(context.Background(), key, path("/"), p)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkUncontended is a lock that no other request wants, from Acquire to Release.
func BenchmarkUncontended(b *testing.B) {
	m := local()
	b.ReportAllocs()
	for b.Loop() {
		acquire(b, m, key, asInTheGate).Release()
	}
}

// BenchmarkUncontendedParallel is the same on all CPUs at once, each with a session of its own.
func BenchmarkUncontendedParallel(b *testing.B) {
	m := local()
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		key := sessionlock.KeyFor(nil, "bench", fmt.Append(nil, n.Add(1)))
		for pb.Next() {
			acquire(b, m, key, asInTheGate).Release()
		}
	})
}

// BenchmarkHandOver is from a Release to the Acquire of the next in the queue, in which a request always waits.
func BenchmarkHandOver(b *testing.B) {
	m := local()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				l, err := m.Acquire(context.Background(), key, path("/"), asInTheGate)
				if err != nil {
					b.Error(err)
					return
				}
				l.Release()
			}
		})
	}
	all.Wait()
}

// BenchmarkWaiters is 10,000 waiters of one session, that come and are served. It reports the memory of each while
// it waits: its goroutine's stack, its place in the queue and its timer.
func BenchmarkWaiters(b *testing.B) {
	const n = 10_000
	long := sessionlock.Policy{MaxWait: time.Hour, Expiry: time.Minute}
	m := local()
	var bytes uint64
	for b.Loop() {
		first := acquire(b, m, key, asInTheGate)
		before := memory()
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				l, err := m.Acquire(context.Background(), key, path("/"), long)
				if err != nil {
					b.Error(err)
					return
				}
				l.Release()
			})
		}
		for len(m.Snapshot()[0].Waiters) < n {
			time.Sleep(time.Millisecond)
		}
		bytes += memory() - before
		first.Release()
		all.Wait()
	}
	b.ReportMetric(float64(bytes)/float64(n*b.N), "bytes/waiter")
}

// memory is what the heap and the stacks have in use.
func memory() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + s.StackInuse
}

// BenchmarkKeyFor is the hash of a session id, without a secret and with one.
func BenchmarkKeyFor(b *testing.B) {
	id := []byte("0123456789abcdefghijklmnop")
	for name, secret := range map[string][]byte{"plain": nil, "secret": []byte("of all hosts")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sessionlock.KeyFor(secret, "www", id)
			}
		})
	}
}
