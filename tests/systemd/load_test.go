package systemd

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is a number of visitors who ask for pages that count in their sessions.
type load struct {
	requests atomic.Int64
	stop     chan struct{}
	visitors sync.WaitGroup

	mu       sync.Mutex
	failures []string
}

var loads atomic.Int64 // started: each has visitors of its own

// startLoad starts visitors, each of whom asks so many times a second, or as soon as the page before it is there.
func startLoad(visitors, perSecond int) *load {
	l := &load{stop: make(chan struct{})}
	load := loads.Add(1)
	for n := range visitors {
		l.visitors.Go(func() { l.visit(fmt.Sprintf("load%dvisitor%d", load, n), time.Second/time.Duration(perSecond)) })
	}
	return l
}

// visit asks until the load ends. Each answer must be one more than the one before it.
func (l *load) visit(session string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for want := 1; ; want++ {
		body, err := ask("/count.php", session)
		l.requests.Add(1)
		if got, _ := strconv.Atoi(body); err != nil || got != want {
			l.fail(fmt.Sprintf("%s, page %d: got %.100q (%v)", session, want, body, err))
			want = got
		}
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
	}
}

func (l *load) fail(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) < 20 {
		l.failures = append(l.failures, what)
	}
}

// await waits until so many more requests are answered.
func (l *load) await(t *testing.T, requests int64) {
	t.Helper()
	want := l.requests.Load() + requests
	eventually(t, fmt.Sprintf("%d more requests are answered", requests), func() bool { return l.requests.Load() >= want })
}

// end ends the load and returns how many requests were answered, and what was wrong with them.
func (l *load) end() (requests int64, failures []string) {
	close(l.stop)
	l.visitors.Wait()
	return l.requests.Load(), l.failures
}
