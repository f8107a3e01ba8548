package systemd

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// testUnderLoad restarts and upgrades the gate while visitors count pages in their sessions.
func testUnderLoad(t *testing.T) {
	underLoad(t, [][]string{{"systemctl", "restart", service}, {"systemctl", "restart", service}, installCommand(t)})
}

// testUnderLoadKept does so while nginx keeps its connections to the gate, which the gate ends in between.
func testUnderLoadKept(t *testing.T) {
	site := read(t, sitePath)
	kept := "upstream gate { server unix:/run/fpm-gate/www.sock; keepalive 8; }\n" +
		strings.Replace(site, "fastcgi_pass unix:/run/fpm-gate/www.sock;", "fastcgi_pass gate; fastcgi_keep_conn on;", 1)
	write(t, sitePath, kept)
	mustDo(t, "systemctl", "restart", "nginx")
	underLoad(t, [][]string{{"systemctl", "restart", service}, {"systemctl", "restart", service}})
	write(t, sitePath, site)
	mustDo(t, "systemctl", "restart", "nginx")
}

// underLoad runs commands that restart the gate, while 200 requests a second come.
func underLoad(t *testing.T, steps [][]string) {
	t.Helper()
	load := startLoad(10, 20)
	pids := map[int]bool{mainPID(t, service): true}
	for _, step := range steps {
		load.await(t, 100)
		mustDo(t, step[0], step[1:]...)
		pids[mainPID(t, service)] = true
	}
	load.await(t, 100)
	requests, failures := load.end()
	t.Logf("%d requests", requests)
	for _, f := range failures {
		t.Error(f)
	}
	if want := len(steps) + 1; len(pids) != want {
		t.Errorf("got %d processes one after the other, want %d", len(pids), want)
	}
}

// load is a number of visitors who ask for pages that count in their sessions.
type load struct {
	requests atomic.Int64
	stop     chan struct{}
	visitors sync.WaitGroup

	mu       sync.Mutex
	failures []string
	slowest  time.Duration
}

var loads atomic.Int64 // started: each has visitors of its own

// startLoad starts visitors, each of which sends so many requests a second, or as soon as the page before it is there.
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
		begun := time.Now()
		method := "GET"
		if want%2 == 0 {
			method = "POST"
		}
		body, err := send(method, "/count.php", session)
		l.requests.Add(1)
		l.took(time.Since(begun))
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

func (l *load) took(answer time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, answer)
}

// longest returns how long the slowest answer took.
func (l *load) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slowest
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
