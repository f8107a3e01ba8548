package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// oneHolder counts, as a script does that reads, thinks and writes: an update is lost where two hold the lock.
func oneHolder(s *suite) {
	const gates, clients, rounds = 3, 4, 8
	var counter, inside atomic.Int64
	var all sync.WaitGroup
	for range gates {
		m := s.gate()
		for range clients {
			all.Go(func() {
				for range rounds {
					l, err := m.Acquire(context.Background(), s.key, nil, s.patient())
					if err != nil {
						s.Errorf("acquire: %v", err)
						return
					}
					if n := inside.Add(1); n != 1 {
						s.Errorf("%d hold the lock; want 1", n)
					}
					read := counter.Load()
					time.Sleep(rand.N(time.Millisecond))
					counter.Store(read + 1)
					inside.Add(-1)
					l.Release()
				}
			})
		}
	}
	all.Wait()
	if got, want := counter.Load(), int64(gates*clients*rounds); got != want {
		s.Errorf("counted %d; want %d", got, want)
	}
}

// ownRelease releases and acquires again without a wait: the release may still be in flight, but it comes first.
func ownRelease(s *suite) {
	m := s.gate()
	for range 50 {
		s.lock(m, sessionlock.Policy{}).Release()
	}
}

func firstInFirstOut(s *suite) {
	const n = 10
	m := s.gate()
	first := s.lock(m, s.patient())
	var mu sync.Mutex
	var got, want []int
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			l, err := m.Acquire(context.Background(), s.key, nil, s.patient())
			if err != nil {
				s.Errorf("acquire: %v", err)
				return
			}
			mu.Lock()
			got = append(got, i)
			mu.Unlock()
			l.Release()
		})
		want = append(want, i)
		s.queued(m, i+1)
	}
	first.Release()
	all.Wait()
	if !slices.Equal(got, want) {
		s.Errorf("got the order %v; want %v", got, want)
	}
}

// turns keeps the queues of some gates full: none hands the lock on among its own for ever.
func turns(s *suite) {
	const gates, clients, total = 3, 4, 120
	var taken atomic.Int64
	var share [gates]atomic.Int64
	fair := func(g int) bool { return share[g].Load() >= taken.Load()/gates/4 } // a quarter of its share
	over := func() bool {
		n := taken.Load()
		if n < 5*total { // a store may be slow for one of them for a moment: the others' turns then are made up for
			for g := range gates {
				if !fair(g) {
					return false
				}
			}
		}
		return n >= total
	}
	var all sync.WaitGroup
	for g := range gates {
		m := s.gate()
		for range clients {
			all.Go(func() {
				for !over() {
					l, err := m.Acquire(context.Background(), s.key, nil, s.patient())
					if err != nil {
						s.Errorf("acquire: %v", err)
						return
					}
					if !over() { // those that waited until then do not count
						taken.Add(1)
						share[g].Add(1)
					}
					time.Sleep(5 * time.Millisecond)
					l.Release()
				}
			})
		}
	}
	all.Wait()
	for g := range gates {
		if !fair(g) {
			s.Errorf("gate %d had %d of %d turns; want at least a quarter of its fair share", g, share[g].Load(), taken.Load())
		}
	}
}

// withdrawnTurn has a gate wait, and give up before its turn has come.
func withdrawnTurn(s *suite) {
	holder, quitter, other := s.gate(), s.gate(), s.gate()
	l := s.lock(holder, s.patient())
	s.held(quitter)
	l.Release()
	s.lock(other, sessionlock.Policy{MaxWait: s.Tolerance}).Release()
}

func maxWait(s *suite) {
	here, elsewhere := s.gate(), s.gate()
	l := s.lock(here, s.patient())
	for name, m := range map[string]*sessionlock.Manager{"the holder's": here, "another": elsewhere} {
		const wait = 150 * time.Millisecond
		start := time.Now()
		_, err := m.Acquire(context.Background(), s.key, nil, sessionlock.Policy{MaxWait: wait})
		took := time.Since(start)
		if !errors.Is(err, sessionlock.ErrMaxWait) {
			s.Errorf("in %s gate: got error %v; want ErrMaxWait", name, err)
		}
		if took < wait || took > wait+s.Tolerance {
			s.Errorf("in %s gate: waited %v; want %v, and at most %v more", name, took, wait, s.Tolerance)
		}
	}
	l.Release()
}

func expiry(s *suite) {
	const hold = 200 * time.Millisecond
	p := s.patient()
	p.Expiry = hold
	l := s.lock(s.gate(), p)
	next := s.lock(s.gate(), sessionlock.Policy{MaxWait: hold + s.Tolerance})
	if held := next.Since().Sub(l.Since()); held < hold {
		s.Errorf("the next holder came after %v; want %v", held, hold)
	}
	if err := l.Err(); !errors.Is(err, sessionlock.ErrExpired) {
		s.Errorf("got error %v of the lock; want ErrExpired", err)
	}
	l.Release()
	s.held(s.gate())
	next.Release()
}

func renewal(s *suite) {
	l, other := s.lock(s.gate(), s.patient()), s.gate()
	for end := time.Now().Add(2*s.ttl + time.Second); time.Now().Before(end); time.Sleep(s.ttl / 4) {
		s.held(other)
	}
	if err := l.Err(); err != nil {
		s.Errorf("got error %v of the lock; want none", err)
	}
	l.Release()
}

// deadGate has a gate die that holds a lock without an expiry.
func deadGate(s *suite) {
	store := &mortal{Store: s.New(s.T)}
	s.lock(sessionlock.NewManager(store), s.patient())
	store.dead.Store(true)
	s.lock(s.gate(), sessionlock.Policy{MaxWait: s.ttl + s.Tolerance}).Release()
}

// releaseByHolder releases a lease a second time, when another gate has it.
func releaseByHolder(s *suite) {
	store := s.New(s.T)
	lease, err := store.Acquire(context.Background(), s.key, sessionlock.Token{1})
	if err != nil {
		s.Fatalf("acquire: %v", err)
	}
	lease.Release()
	l := s.lock(s.gate(), s.patient())
	lease.Release()
	s.held(s.gate())
	if err := l.Err(); err != nil {
		s.Errorf("got error %v of the lock; want none", err)
	}
	l.Release()
}

// canceledRequest cancels a request to the store at every moment.
func canceledRequest(s *suite) {
	m := s.gate()
	for range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(2*time.Millisecond))
		if l, err := m.Acquire(ctx, s.key, nil, s.patient()); err == nil {
			l.Release()
		}
		cancel()
	}
	s.lock(s.gate(), sessionlock.Policy{MaxWait: s.Tolerance}).Release()
}

// cutOff has a gate freeze for so long that another takes its lock, and come back: it knows better than to go on,
// and does not touch the lock that is the other's now.
func cutOff(s *suite) {
	store := &mortal{Store: s.New(s.T)}
	l := s.lock(sessionlock.NewManager(store), s.patient())
	store.dead.Store(true)
	next := s.lock(s.gate(), sessionlock.Policy{MaxWait: s.ttl + s.Tolerance})
	s.lost(l, 0)
	store.dead.Store(false)
	l.Release()
	s.held(s.gate())
	next.Release()
}

// dropped has the server forget a lease. Its gate notices at the next renewal at the latest: it says so, or has
// taken the lease again before anybody else could.
func dropped(s *suite) {
	l := s.lock(s.gate(), s.patient())
	s.Drop(s.T, s.key)
	next, err := s.gate().Acquire(context.Background(), s.key, nil, sessionlock.Policy{MaxWait: s.ttl})
	if err == nil {
		s.lost(l, s.ttl/3)
		l.Release()
		s.held(s.gate())
		next.Release()
		return
	}
	if !errors.Is(err, sessionlock.ErrMaxWait) || l.Err() != nil {
		s.Errorf("no gate has the lock: got error %v from the other gate, %v from the holder", err, l.Err())
	}
	l.Release()
}
