package fcgi

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

func TestPingAsksARealPHPFPM(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{})
		if err := Ping(t.Context(), f.addr, rig.PingPath, patience); err != nil {
			t.Errorf("got %v", err)
		}
		err := Ping(t.Context(), f.addr, "/not-the-ping-path", patience)
		if !errors.Is(err, ErrProbe) || !strings.Contains(err.Error(), f.addr.String()) {
			t.Errorf("a wrong path: got %v, want ErrProbe with the address", err)
		}
		if err := f.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := Ping(t.Context(), f.addr, rig.PingPath, patience); err == nil || errors.Is(err, ErrProbe) {
			t.Errorf("a PHP-FPM that is stopped: got %v, want an error of the connection", err)
		}
	})
}

// pageOf serves every request of a connection the same response.
func pageOf(response string) func(*phpConn) {
	return func(p *phpConn) {
		for {
			r, err := p.request()
			if err != nil {
				return
			}
			p.answer(r.id, response)
		}
	}
}

const pong = "Content-Type: text/plain\r\n\r\npong"

const statusPage = "Content-Type: application/json\r\n\r\n" + `{"pool":"www","process manager":"static","start time":1,
"accepted conn":7,"listen queue":1,"max listen queue":2,"idle processes":3,"active processes":4,"total processes":7,
"max active processes":5,"max children reached":6,"slow requests":8}`

func TestStatusPageIsRead(t *testing.T) {
	got, err := QueryStatus(t.Context(), startPHP(t, "unix", pageOf(statusPage)), "/status", patience)
	want := Status{
		Pool: "www", ProcessManager: "static", AcceptedConn: 7, ListenQueue: 1, MaxListenQueue: 2, IdleProcesses: 3,
		ActiveProcesses: 4, TotalProcesses: 7, MaxActiveProcesses: 5, MaxChildrenReached: 6, SlowRequests: 8,
	}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}

func TestStatusOfARealPHPFPM(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 3})
	a := statusAddr(f)
	for range 5 {
		p := f.dial()
		p.send(f.get(1, false, "hello.php", ""))
		p.response(1)
		p.Close()
	}
	var got Status
	for end := time.Now().Add(patience); got.TotalProcesses != 3 && time.Now().Before(end); { // it counts while its workers change
		var err error
		if got, err = QueryStatus(t.Context(), a, rig.StatusPath, patience); err != nil {
			t.Fatal(err)
		}
	}
	if got.Pool != "www" || got.ProcessManager != "static" || got.AcceptedConn < 5 || got.TotalProcesses != 3 ||
		got.MaxActiveProcesses < 1 {
		t.Errorf("got %+v, want five requests and three processes", got)
	}
}

func TestProbeOfWhatIsNoPHPFPM(t *testing.T) {
	for name, serve := range map[string]func(*phpConn){
		"an error page":       pageOf("Status: 500 Internal Server Error\r\n\r\nsorry"),
		"a page without body": pageOf("Content-Type: text/plain\r\n\r\n"),
		"stderr": func(p *phpConn) {
			r, _ := p.request()
			p.send(AppendRecord(nil, TypeStderr, r.id, []byte("Primary script unknown")), answerOf(r.id, pong))
		},
	} {
		a := startPHP(t, "unix", serve)
		if err := Ping(t.Context(), a, "/ping", patience); !errors.Is(err, ErrProbe) {
			t.Errorf("ping, %s: got %v, want ErrProbe", name, err)
		}
		if _, err := QueryStatus(t.Context(), a, "/status", patience); !errors.Is(err, ErrProbe) {
			t.Errorf("status, %s: got %v, want ErrProbe", name, err)
		}
	}
	a := startPHP(t, "unix", pageOf(pong))
	if _, err := QueryStatus(t.Context(), a, "/status", patience); !errors.Is(err, ErrProbe) {
		t.Errorf("status, a page that is not JSON: got %v, want ErrProbe", err)
	}
}

func TestProbeOfWhoSaysNothingEnds(t *testing.T) {
	for name, serve := range map[string]func(*phpConn){
		"nothing":           func(p *phpConn) { p.ended() },
		"half an answer":    func(p *phpConn) { p.send(answerOf(1, "\r\npong")[:10]); p.ended() },
		"an early end":      func(p *phpConn) { _, _ = p.request() },
		"no header":         pageOf("\r\npong"),
		"a bad header":      pageOf("what is this?\r\n\r\n" + strings.Repeat("pong", 100_000)),
		"no FastCGI at all": func(p *phpConn) { p.send([]byte("220 mail.example.com ESMTP ready, please go on\r\n")); p.ended() },
	} {
		a := startPHP(t, "unix", serve)
		if err := waitFor(t, name, func() error { return Ping(t.Context(), a, "/ping", 50*time.Millisecond) }); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestProbesLeaveNothingBehind(t *testing.T) {
	good := startPHP(t, "unix", pageOf(pong))
	bad := startPHP(t, "unix", func(p *phpConn) { p.ended() })
	worse := startPHP(t, "unix", pageOf("what is this?\r\n\r\n"+strings.Repeat("pong", 100_000)))
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 20 {
		if err := Ping(t.Context(), good, "/ping", patience); err != nil {
			t.Error(err)
		}
		_ = Ping(t.Context(), bad, "/ping", 5*time.Millisecond)
		_ = Ping(t.Context(), worse, "/ping", 5*time.Millisecond)
		_ = Ping(t.Context(), nobody(t), "/ping", patience)
	}
	await(t, "goroutines and files are as before", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

// openFiles is how many files and sockets the test has open.
func openFiles(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func TestProberTellsWhenAnAddressFailsAndWhenItIsBack(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	other := startPHP(t, "unix", pageOf(pong))
	pool := newPool(t, nil, f.addr, other)
	type change struct {
		addr Addr
		err  error
	}
	changes := make(chan change, 10)
	p := StartProber(pool, ProbeOptions{
		PingPath: rig.PingPath, Interval: 300 * time.Millisecond,
		Changed: func(a Addr, _ Health, err error) { changes <- change{a, err} },
	})
	defer p.Stop()
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	if c := receive(t, "the failure is noticed", changes); c.addr != f.addr || c.err == nil {
		t.Errorf("got %+v, want %v to fail", c, f.addr)
	}
	for range 3 {
		if u := connect(t, pool); u.backend.addr != other {
			t.Error("the failing address is not passed over")
		}
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	if c := receive(t, "the return is noticed", changes); c.addr != f.addr || c.err != nil {
		t.Errorf("got %+v, want %v to be back", c, f.addr)
	}
	pool.mu.Lock()
	pool.backends[0].downUntil = time.Time{}
	pool.mu.Unlock()
	if u := connect(t, pool); u.backend.addr != f.addr {
		t.Error("the address that is back is not used")
	}
}

func TestProberKeepsTheLastStatus(t *testing.T) {
	l := listen(t, "unix")
	a := Addr{"unix", l.Addr().String()}
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			pageOf(statusPage)(&phpConn{peer: newPeer(t, nc)})
			nc.Close()
		}
	}()
	p := StartProber(newPool(t, nil, a), ProbeOptions{StatusPath: "/status", Interval: 5 * time.Millisecond})
	await(t, "a status", func() bool { return p.Statuses()[a].AcceptedConn == 7 })
	l.Close()
	<-serving
	await(t, "it is forgotten when none comes any more", func() bool { return len(p.Statuses()) == 0 })
	p.Stop()
}

// A PHP-FPM whose workers are all taken accepts, or has a full backlog, and does not answer. Whether that is a failure
// depends on whose requests they work on.
func TestAPingThatWaitsForAWorkerIsNoFailure(t *testing.T) {
	for _, tt := range []struct {
		name     string
		network  string
		start    func(t *testing.T, network string) Addr
		requests bool
		want     Health
	}{
		{"unix, silent, with requests", "unix", startSilent, true, Busy},
		{"tcp, silent, with requests", "tcp", startSilent, true, Busy},
		{"unix, silent, without requests", "unix", startSilent, false, Failing},
		{"tcp, silent, without requests", "tcp", startSilent, false, Failing},
		{"unix, a full backlog, with requests", "unix", startFull, true, Busy},
		{"unix, a full backlog, without requests", "unix", startFull, false, Failing},
		{"a wrong answer, with requests", "unix", startWrong, true, Failing},
		{"nothing there, with requests", "unix", func(t *testing.T, _ string) Addr { return nobody(t) }, true, Failing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := tt.start(t, tt.network)
			pool := newPool(t, nil, a)
			pool.mu.Lock()
			if tt.requests {
				pool.backends[0].busy = 3
			}
			pool.mu.Unlock()
			changes := make(chan Health, 10)
			p := StartProber(pool, ProbeOptions{
				PingPath: "/ping", Interval: 100 * time.Millisecond,
				Changed: func(_ Addr, h Health, _ error) { changes <- h },
			})
			defer p.Stop()
			if got := receive(t, "a change", changes); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if a := pool.Addrs()[0]; a.Failing != (tt.want == Failing) || a.Saturated != (tt.want == Busy) {
				t.Errorf("got %+v, want %v", a, tt.want)
			}
			if tt.want == Busy { // until the requests are done
				pool.mu.Lock()
				pool.backends[0].busy = 0
				pool.mu.Unlock()
				if got := receive(t, "another change", changes); got != Failing {
					t.Errorf("without the requests: got %v, want %v", got, Failing)
				}
			}
		})
	}
}

// startSilent starts what accepts and says nothing.
func startSilent(t *testing.T, network string) Addr {
	return startPHP(t, network, func(p *phpConn) { p.ended() })
}

func startWrong(t *testing.T, network string) Addr {
	return startPHP(t, network, pageOf("Status: 500 Internal Server Error\r\n\r\nsorry"))
}

// startFull starts what listens and accepts nothing, with a backlog that is full.
func startFull(t *testing.T, network string) Addr {
	l := listen(t, network)
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.UnixListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), 0) })
	for {
		nc, err := net.Dial(network, l.Addr().String())
		if err != nil {
			return Addr{network, l.Addr().String()}
		}
		t.Cleanup(func() { nc.Close() })
	}
}

func TestProberStopsInTheMiddleOfAProbe(t *testing.T) {
	asked := make(chan struct{}, 100)
	a := startPHP(t, "unix", func(p *phpConn) {
		asked <- struct{}{}
		p.ended()
	})
	p := StartProber(newPool(t, nil, a), ProbeOptions{PingPath: "/ping", Interval: time.Hour})
	receive(t, "a probe", asked)
	_ = waitFor(t, "the end of the prober", func() error { p.Stop(); return nil })
	p.Stop()
}

func TestProberWithoutAPathAsksForNothing(t *testing.T) {
	a := startPHP(t, "unix", func(*phpConn) { t.Error("PHP-FPM was asked") })
	p := StartProber(newPool(t, nil, a), ProbeOptions{})
	p.Stop()
	if got := p.Statuses(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// The sums of PHP-FPM's status page are wrong while connections are kept; the states of its processes are right.
func TestStatusCountsWorkersByWhatTheyDo(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 5})
	a := statusAddr(f)
	var kept []*peer
	for range 2 {
		kept = append(kept, f.dial())
	}
	for range 3 {
		for _, p := range kept {
			p.send(f.get(1, true, "hello.php", ""))
			p.response(1)
		}
	}
	f.dial().send(f.get(1, false, "sleep.php", "s=30"))
	var got Status
	for end := time.Now().Add(patience); got.ActiveProcesses != 1 && time.Now().Before(end); {
		var err error
		if got, err = QueryStatus(t.Context(), a, rig.StatusPath, patience); err != nil {
			t.Fatal(err)
		}
	}
	if got.ActiveProcesses != 1 || got.KeptProcesses != 2 || got.IdleProcesses != 2 || got.TotalProcesses != 5 {
		t.Errorf("got %+v, want 1 active, 2 kept and 2 idle of 5", got)
	}
}

// statusAddr returns where the rig's PHP-FPM shows its status: a socket of its own, next to that of its scripts.
func statusAddr(f *fpm) Addr {
	return Addr{"unix", strings.Replace(f.addr.Address, ".sock", "-status.sock", 1)}
}
