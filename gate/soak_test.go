package gate

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
)

// soakTime is how long the soak runs.
const soakTime = 3 * time.Second

// TestSoakLeavesNothingBehind has many web servers do what they should, and what they should not, all at once.
func TestSoakLeavesNothingBehind(t *testing.T) {
	measured := newLedger()
	s := newStand(t, func(o *Options) {
		o.Policy.MaxWait, o.Policy.Expiry, o.Policy.AbandonAfter = 100*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
		o.Policy.MaxWaiters, o.Policy.OnExpiry = 5, OverdueAbort
		o.Meter = measured.meter
		o.Limits.HeadTimeout, o.Limits.IdleTimeout = 200*time.Millisecond, 50*time.Millisecond
		o.Upstream.MaxConnections, o.Upstream.QueueTimeout = 6, 100*time.Millisecond
		o.Upstream.Reuse, o.Upstream.Idle = 300*time.Millisecond, 5*time.Millisecond
	})
	stopScripts := s.php.runAll()
	before := s.measure()
	var served atomic.Int64
	var users sync.WaitGroup
	end := time.Now().Add(soakTime)
	for range 24 {
		users.Go(func() {
			for time.Now().Before(end) {
				s.misbehave(&served)
			}
		})
	}
	for time.Now().Before(end) {
		time.Sleep(soakTime / 10)
		s.Configure(s.options(func(o *Options) { *o = s.setup.Load().Options }))
	}
	users.Wait()
	await(t, "all conns are over", func() bool { return s.Conns() == 0 })
	s.unlocked()
	await(t, "all connections to PHP-FPM are closed", func() bool { return s.Stats().Pool.Open == 0 })
	stopScripts()
	after := s.measure()
	if after.goroutines > before.goroutines || after.files > before.files {
		t.Errorf("before: %+v, after: %+v", before, after)
		t.Logf("%s", stacks())
	}
	got := s.Stats()
	if served.Load() == 0 {
		t.Error("no request was served as it should")
	}
	ends := uint64(0)
	for _, n := range got.Routes[0].Outcomes {
		ends += n
	}
	if ends != got.Requests {
		t.Errorf("%d requests have ended in %v, want each of %d to have ended once", ends, got.Routes[0].Outcomes, got.Requests)
	}
	await(t, "each hold is measured once", func() bool {
		measured.mu.Lock()
		defer measured.mu.Unlock()
		return uint64(sum(measured.holds)) == got.Acquired
	})
	t.Logf("%d served; %+v; holds %v", served.Load(), got, measured.holds)
}

// misbehave does one of the things that a web server does, on a conn of its own.
func (s *stand) misbehave(served *atomic.Int64) {
	nc, err := net.Dial("unix", s.addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	b := &browser{nc, s.t, "soak"}
	id := fmt.Sprintf("session%d", rand.IntN(8))
	do := []string{"", "", "", "sleep", "die", "half", "stream", "hang"}[rand.IntN(8)]
	request := requestOf(append(session(id), "DO", do)...)
	pause := time.Duration(rand.IntN(30)) * time.Millisecond
	switch rand.IntN(8) {
	case 0, 1, 2: // as it should be, and some requests more
		for range 1 + rand.IntN(3) {
			_, _ = nc.Write(request)
			if got := b.response(); got.err != nil {
				return
			} else if got.body == "ok" {
				served.Add(1)
			}
		}
	case 3: // hang up at any time
		_, _ = nc.Write(request)
		time.Sleep(pause)
	case 4: // hang up in the middle of the request
		_, _ = nc.Write(request[:rand.IntN(len(request))])
		time.Sleep(pause)
	case 5: // speak something else, from some byte on
		_, _ = nc.Write(append(request[:rand.IntN(len(request)):len(request)], "HTTP/1.1 400 Bad Request\r\n\r\n"...))
		b.response()
	case 6: // abort
		_, _ = nc.Write(request)
		time.Sleep(pause)
		_, _ = nc.Write(fcgi.AppendRecord(nil, fcgi.TypeAbortRequest, 1, nil))
		b.response()
	case 7: // say that this was all, and ask what is not asked
		_, _ = nc.Write(fcgi.AppendRecord(request, fcgi.TypeGetValues, 0, fcgi.AppendPair(nil, "FCGI_MPXS_CONNS", "")))
		_ = nc.(*net.UnixConn).CloseWrite()
		b.response()
	}
}

// runAll runs all scripts, as their params say, until stop, which waits for them.
func (p *php) runAll() (stop func()) {
	done := make(chan struct{})
	var scripts sync.WaitGroup
	scripts.Go(func() {
		for {
			select {
			case s := <-p.running:
				scripts.Go(s.run)
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		scripts.Wait()
	}
}

func (s *script) run() {
	switch s.params["DO"] {
	case "die":
		s.die()
		return
	case "half":
		s.send(page + "half")
		s.die()
		return
	case "sleep":
		time.Sleep(5 * time.Millisecond)
	case "hang":
		time.Sleep(250 * time.Millisecond)
	case "stream":
		s.send("X-A: a\r\n")
		time.Sleep(time.Millisecond)
		s.send(page + strings.Repeat("x", 100_000))
	}
	s.end(page + "ok")
}

// resources are what a gate that does nothing should not have more of than before.
type resources struct {
	goroutines, files int
	memory            uint64
}

// measure waits until the goroutines that are kept for the next conns have ended, and counts.
func (s *stand) measure() resources {
	s.t.Helper()
	var r resources
	for stable := 0; stable < 20; time.Sleep(10 * time.Millisecond) {
		now := resources{goroutines: runtime.NumGoroutine(), files: openFiles(s.t)}
		stable++
		if now != r {
			r, stable = now, 0
		}
		if serving := strings.Count(stacks(), "serveConns("); serving > s.Conns() {
			stable = 0
		}
	}
	for range 3 { // pools let go of what they hold at the second time
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.memory = m.HeapInuse + m.StackInuse
	return r
}

func stacks() string {
	b := make([]byte, 16<<20)
	return string(b[:runtime.Stack(b, true)])
}

func openFiles(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// manyWaiters is limited by the race detector, which has room for 8,000 goroutines, and by the open files.
const manyWaiters = 2000

// TestWaitersTakeLittleAndLeaveNothing has many requests of a session wait. What is measured is theirs and the test's
// own, so the bounds are wide: a buffer of 64 KiB for each would not pass, nor would one of 4 KiB that is left behind.
func TestWaitersTakeLittleAndLeaveNothing(t *testing.T) {
	const each, left = 48 << 10, 4 << 10
	s := newStand(t, func(o *Options) { o.Policy.MaxWait, o.Policy.MaxWaiters = time.Minute, 0 })
	first := s.ask(session("one")...)
	holder := s.php.next()
	before := s.measure()
	conns := make([]net.Conn, manyWaiters)
	request := requestOf(append(session("one"), "SOME_PARAM", strings.Repeat("x", 1000))...)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("unix", s.addr); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		if _, err := conns[i].Write(request); err != nil {
			t.Fatal(err)
		}
	}
	s.waiters(manyWaiters)
	during := s.measureNow()
	if per := (during.memory - min(before.memory, during.memory)) / manyWaiters; per > each {
		t.Errorf("a waiter takes %d bytes, want at most %d", per, each)
	} else {
		t.Logf("%d waiters take %d bytes each, the test's own among them", manyWaiters, per)
	}
	for _, c := range conns {
		c.Close()
	}
	s.waiters(0)
	holder.end(page + "x")
	first.want("x")
	first.Close()
	s.unlocked()
	s.php.none(t)
	after := s.measure()
	if after.goroutines > before.goroutines || after.files > before.files || after.memory > before.memory+manyWaiters*left {
		t.Errorf("before: %+v, after: %+v", before, after)
	}
}

func (s *stand) measureNow() resources {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return resources{goroutines: runtime.NumGoroutine(), memory: m.HeapInuse + m.StackInuse}
}
