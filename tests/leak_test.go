package tests

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/rig"
)

// What is left behind when all is over: nothing.

// soakTime is how long the soak goes on.
const soakTime = 10 * time.Second

func TestSoakLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := newStack(t, stackOptions{
		PHP: rig.PHPOptions{Workers: 8, MaxRequests: 200},
		Gate: rig.GateOptions{Settings: `
  head_timeout = "1s"
  idle_timeout = "1s"
  lock {
    max_wait      = "2s"
    expiry        = "3s"
    abandon_after = "1s"
    on_expiry     = "abort"
    server_timing = true
  }`},
		Site: rig.Site{Unbuffered: true, Keepalive: 8},
	})
	before := baseline(t, s)
	threads := threadsOf(t, s.Gate.Pid())
	ctx, stop := context.WithTimeout(t.Context(), soakTime)
	defer stop()
	var all sync.WaitGroup
	var served atomic.Int64
	sessions := []string{newSession(), newSession(), newSession(), newSession()}
	for range 6 {
		all.Go(func() {
			for ctx.Err() == nil {
				if s.browse(ctx, sessions[rand.IntN(len(sessions))]) {
					served.Add(1)
				}
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for ctx.Err() == nil {
				s.misbehave(t)
			}
		})
	}
	all.Go(func() { // and an operator that asks all the time
		for ctx.Err() == nil {
			_ = s.Gate.Signal(syscall.SIGHUP)
			time.Sleep(200 * time.Millisecond)
		}
	})
	all.Wait()
	if served.Load() == 0 {
		t.Error("no request was served")
	}
	t.Logf("%d requests were served as they should", served.Load())
	eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
	// Threads are never given back: one for each processor and a few that stood in a system call are normal. One for
	// each request is not.
	if now := threadsOf(t, s.Gate.Pid()); now > threads+20 {
		t.Errorf("%d threads, and %d before", now, threads)
	}
	for range 3 {
		for _, session := range sessions { // no request holds their locks
			if err := s.get("/work.php", session).failure(); err != nil {
				t.Errorf("after all: %v", err)
			}
		}
	}
}

// browse asks for something as a browser does, and leaves before its answer now and then.
func (s *stack) browse(ctx context.Context, session string) (served bool) {
	paths := []string{
		"/hello.php", "/work.php?ms=5", "/work.php", "/stream.php?ms=10&n=3", "/big.php?mb=1", "/die.php", "/die.php?kb=0",
		"/finish.php?ms=20", "/close.php?ms=10", "/login.php", "/nosession.php?ms=5", "/headers.php?bytes=5000",
	}
	q := request{path: paths[rand.IntN(len(paths))], session: session}
	switch rand.IntN(5) {
	case 0:
		leaves, leave := context.WithTimeout(ctx, time.Duration(rand.IntN(50))*time.Millisecond)
		defer leave()
		q.ctx = leaves
	case 1:
		q.method, q.path, q.body = "POST", "/upload.php", strings.NewReader(strings.Repeat("body", rand.IntN(100_000)))
	case 2:
		q.session = newSession()
	}
	return ask(s.Site, q).failure() == nil
}

// misbehave is a web server that is no good.
func (s *stack) misbehave(t *testing.T) {
	nc, err := net.Dial(s.Gate.Addr.Network, s.Gate.Addr.Address)
	if err != nil {
		t.Errorf("the gate does not accept: %v", err)
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(requestTimeout))
	bytes := helloRequest(s, newSession())
	switch rand.IntN(5) {
	case 0: // says nothing more at some byte
		_, _ = nc.Write(bytes[:rand.IntN(len(bytes))])
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
	case 1: // says something else
		_, _ = nc.Write(append(bytes[:rand.IntN(len(bytes)):len(bytes)], "what a pity, this is no FastCGI"...))
		_ = readAnswer(nc)
	case 2: // says that this was all
		_, _ = nc.Write(bytes[:rand.IntN(len(bytes))])
		_ = nc.(*net.UnixConn).CloseWrite()
		_ = readAnswer(nc)
	case 3: // aborts
		_, _ = nc.Write(fcgi.AppendRecord(bytes, fcgi.TypeAbortRequest, 1, nil))
		_ = readAnswer(nc)
	case 4: // does not wait for the answer
		_, _ = nc.Write(bytes)
	}
}

// threadsOf is how many threads a process has.
func threadsOf(t testing.TB, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// TestManyWaitersTakeLittleAndLeaveNothing has 10,000 requests of a session wait, twice. How much they take is the
// benchmark's to say; here is a bound that a buffer of 32 KiB for each would not keep, and the second time must not
// take more than the first.
func TestManyWaitersTakeLittleAndLeaveNothing(t *testing.T) {
	const waiters, each = 10_000, 40 << 10
	s := newStack(t, stackOptions{Gate: rig.GateOptions{
		Binary: plainBinary, // the race detector has no room for so many
		Settings: `
  lock {
    max_wait    = "55s"
    expiry      = "10m"
    max_waiters = 20000
  }`,
		Env: []string{"GOGC=50"},
	}})
	before, idle := baseline(t, s), sockets(t, s)
	atRest := privateMemory(t, s)
	var peaks []int64
	for round := range 2 {
		session, mark := newSession(), fmt.Sprintf("round%d", round)
		held := s.hold(t, session, mark)
		conns := s.wait(t, session, waiters)
		eventually(t, "all of them wait", func() bool { return sockets(t, s) >= idle+2+waiters })
		peaks = append(peaks, privateMemory(t, s))
		for _, nc := range conns {
			_ = nc.Close()
		}
		eventually(t, "all of them have left", func() bool { return sockets(t, s) <= idle+2 }) // the holder has two
		letGo(t, s.Rig, mark)
		(<-held).mustBe(t, "last\n")
		s.get("/note.php?mark="+mark+"-next&say=next", session).mustBe(t, "next\n")
		eventually(t, "nothing is left open", func() bool { return files(t, s) <= before })
	}
	t.Logf("at rest %d MiB, with %d waiters %d and %d MiB", atRest>>20, waiters, peaks[0]>>20, peaks[1]>>20)
	if per := (peaks[0] - atRest) / waiters; per > each {
		t.Errorf("a waiter takes %d bytes, want at most %d", per, each)
	}
	if peaks[1] > 2*peaks[0] {
		t.Errorf("the second time takes %d bytes, the first %d: something is left behind", peaks[1], peaks[0])
	}
}

// wait has n requests for note.php come over conns of their own. None of them is to run.
func (s *stack) wait(t *testing.T, session string, n int) []net.Conn {
	t.Helper()
	params := fcgi.AppendPair(nil, "SCRIPT_FILENAME", filepath.Join(s.DocRoot, "note.php"))
	params = fcgi.AppendPair(params, "QUERY_STRING", "mark=waiters&say=ran")
	params = fcgi.AppendPair(params, "REQUEST_METHOD", "GET")
	params = fcgi.AppendPair(params, "HTTP_COOKIE", "PHPSESSID="+session)
	request := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	request = fcgi.AppendRecord(request, fcgi.TypeParams, 1, params)
	request = fcgi.AppendRecord(request, fcgi.TypeParams, 1, nil)
	request = fcgi.AppendRecord(request, fcgi.TypeStdin, 1, nil)
	conns := make([]net.Conn, n)
	for i := range conns {
		nc, err := net.Dial(s.Gate.Addr.Network, s.Gate.Addr.Address)
		for errors.Is(err, syscall.EAGAIN) { // the backlog is full
			time.Sleep(time.Millisecond)
			nc, err = net.Dial(s.Gate.Addr.Network, s.Gate.Addr.Address)
		}
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = nc
		t.Cleanup(func() { _ = nc.Close() })
		if _, err := nc.Write(request); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if marked(s.Rig, "waiters") {
			t.Error("a waiter ran")
		}
	})
	return conns
}

func privateMemory(t testing.TB, s *stack) int64 {
	t.Helper()
	m, err := s.Gate.Memory()
	if err != nil {
		t.Fatal(err)
	}
	return m.Private
}
