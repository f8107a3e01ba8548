package phpfpm

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
	"github.com/fpm-gate/fpm-gate/internal/rig"
)

const pong = "Content-Type: text/plain\r\n\r\npong"

const statusPage = "Content-Type: application/json\r\n\r\n" + `{"pool":"www","process manager":"static","start time":1,
"accepted conn":7,"listen queue":1,"max listen queue":2,"listen queue len":511,"idle processes":3,"active processes":4,"total processes":7,
"max active processes":5,"max children reached":6,"slow requests":8}`

func TestPingAsksARealPHPFPM(t *testing.T) {
	netpolltest.Both(t, func(t *testing.T, network string) {
		f := startFPM(t, network, rig.PHPOptions{})
		if err := Ping(t.Context(), f.Addr, rig.PingPath, netpolltest.Patience); err != nil {
			t.Errorf("got %v", err)
		}
		err := Ping(t.Context(), f.Addr, "/not-the-ping-path", netpolltest.Patience)
		if !errors.Is(err, ErrProbe) || !strings.Contains(err.Error(), f.Addr.String()) {
			t.Errorf("a wrong path: got %v, want ErrProbe with the address", err)
		}
		if err := f.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := Ping(t.Context(), f.Addr, rig.PingPath, netpolltest.Patience); err == nil || errors.Is(err, ErrProbe) {
			t.Errorf("a PHP-FPM that is stopped: got %v, want an error of the connection", err)
		}
	})
}

func TestStatusPageIsRead(t *testing.T) {
	got, err := QueryStatus(t.Context(), startPHP(t, "unix", pageOf(statusPage)), "/status", netpolltest.Patience)
	want := Status{
		Pool: "www", ProcessManager: "static", AcceptedConn: 7, ListenQueue: 1, MaxListenQueue: 2, ListenQueueLen: 511, IdleProcesses: 3,
		ActiveProcesses: 4, TotalProcesses: 7, MaxActiveProcesses: 5, MaxChildrenReached: 6, SlowRequests: 8,
	}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}

func TestStatusOfARealPHPFPM(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 3})
	a := f.statusAddr()
	for range 5 {
		nc := f.dial()
		f.run(nc, false, "hello.php", "")
		nc.Close()
	}
	var got Status
	for end := time.Now().Add(netpolltest.Patience); got.TotalProcesses != 3 && time.Now().Before(end); { // it counts while its workers change
		var err error
		if got, err = QueryStatus(t.Context(), a, rig.StatusPath, netpolltest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if got.Pool != "www" || got.ProcessManager != "static" || got.AcceptedConn < 5 || got.TotalProcesses != 3 ||
		got.MaxActiveProcesses < 1 {
		t.Errorf("got %+v, want five requests and three processes", got)
	}
}

func TestProbeOfWhatIsNoPHPFPM(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"an error page":       pageOf("Status: 500 Internal Server Error\r\n\r\nsorry"),
		"a page without body": pageOf("Content-Type: text/plain\r\n\r\n"),
		"stderr": func(nc net.Conn) {
			id, _ := readRequest(nc)
			send(nc, fcgi.AppendRecord(nil, fcgi.TypeStderr, id, []byte("Primary script unknown")), answerOf(id, pong))
		},
	} {
		a := startPHP(t, "unix", serve)
		if err := Ping(t.Context(), a, "/ping", netpolltest.Patience); !errors.Is(err, ErrProbe) {
			t.Errorf("ping, %s: got %v, want ErrProbe", name, err)
		}
		if _, err := QueryStatus(t.Context(), a, "/status", netpolltest.Patience); !errors.Is(err, ErrProbe) {
			t.Errorf("status, %s: got %v, want ErrProbe", name, err)
		}
	}
	a := startPHP(t, "unix", pageOf(pong))
	if _, err := QueryStatus(t.Context(), a, "/status", netpolltest.Patience); !errors.Is(err, ErrProbe) {
		t.Errorf("status, a page that is not JSON: got %v, want ErrProbe", err)
	}
}

func TestProbeOfWhoSaysNothingEnds(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"nothing":        func(nc net.Conn) { awaitEnd(nc) },
		"half an answer": func(nc net.Conn) { send(nc, answerOf(1, "\r\npong")[:10]); awaitEnd(nc) },
		"an early end":   func(nc net.Conn) { _, _ = readRequest(nc) },
		"no header":      pageOf("\r\npong"),
		"a bad header":   pageOf("what is this?\r\n\r\n" + strings.Repeat("pong", 100_000)),
		"no FastCGI at all": func(nc net.Conn) {
			send(nc, []byte("220 mail.example.com ESMTP ready, please go on\r\n"))
			awaitEnd(nc)
		},
	} {
		a := startPHP(t, "unix", serve)
		if err := netpolltest.WaitFor(t, name, func() error { return Ping(t.Context(), a, "/ping", 50*time.Millisecond) }); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestProbesLeaveNothingBehind(t *testing.T) {
	good := startPHP(t, "unix", pageOf(pong))
	bad := startPHP(t, "unix", func(nc net.Conn) { awaitEnd(nc) })
	worse := startPHP(t, "unix", pageOf("what is this?\r\n\r\n"+strings.Repeat("pong", 100_000)))
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 20 {
		if err := Ping(t.Context(), good, "/ping", netpolltest.Patience); err != nil {
			t.Error(err)
		}
		_ = Ping(t.Context(), bad, "/ping", 5*time.Millisecond)
		_ = Ping(t.Context(), worse, "/ping", 5*time.Millisecond)
		_ = Ping(t.Context(), noListener(t), "/ping", netpolltest.Patience)
	}
	netpolltest.Await(t, "goroutines and files are as before", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}

// The sums of PHP-FPM's status page are wrong while connections are kept; the states of its processes are right.
func TestStatusCountsWorkersByWhatTheyDo(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 5})
	a := f.statusAddr()
	var kept []net.Conn
	for range 2 {
		kept = append(kept, f.dial())
	}
	for range 3 {
		for _, nc := range kept {
			f.run(nc, true, "hello.php", "")
		}
	}
	send(f.dial(), f.get(false, "sleep.php", "s=30"))
	var got Status
	for end := time.Now().Add(netpolltest.Patience); got.ActiveProcesses != 1 && time.Now().Before(end); {
		var err error
		if got, err = QueryStatus(t.Context(), a, rig.StatusPath, netpolltest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if got.ActiveProcesses != 1 || got.KeptProcesses != 2 || got.IdleProcesses != 2 || got.TotalProcesses != 5 {
		t.Errorf("got %+v, want 1 active, 2 kept and 2 idle of 5", got)
	}
}
