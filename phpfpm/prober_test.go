package phpfpm

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/internal/netpolltest"
	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// fakePool is a pool that remembers what it hears of its addresses.
type fakePool struct {
	busy atomic.Bool
	mu   sync.Mutex
	all  map[netaddr.Addr]fcgi.Health
}

func (p *fakePool) IsBusy(netaddr.Addr) bool { return p.busy.Load() }

func (p *fakePool) SetHealth(a netaddr.Addr, h fcgi.Health) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = make(map[netaddr.Addr]fcgi.Health)
	}
	before := p.all[a]
	p.all[a] = h
	return before != h
}

func (p *fakePool) health(a netaddr.Addr) fcgi.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[a]
}

func TestProberTellsWhenAnAddressFailsAndWhenItIsBack(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{})
	failing, other := f.Addr, startPHP(t, "unix", pageOf(pong))
	pool := new(fakePool)
	type change struct {
		addr netaddr.Addr
		err  error
	}
	changes := make(chan change, 10)
	p := StartProber(pool, []netaddr.Addr{failing, other}, ProbeOptions{
		PingPath: rig.PingPath, Interval: 300 * time.Millisecond,
		Changed: func(a netaddr.Addr, _ fcgi.Health, err error) { changes <- change{a, err} },
	})
	defer p.Stop()
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	if c := netpolltest.Receive(t, "the failure is noticed", changes); c.addr != failing || c.err == nil {
		t.Errorf("got %+v, want %v to fail", c, failing)
	}
	if a, b := pool.health(failing), pool.health(other); a != fcgi.Failing || b != fcgi.Healthy {
		t.Errorf("the pool knows %v and %v, want only the first to fail", a, b)
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	if c := netpolltest.Receive(t, "the return is noticed", changes); c.addr != failing || c.err != nil {
		t.Errorf("got %+v, want %v to be back", c, failing)
	}
	if got := pool.health(failing); got != fcgi.Healthy {
		t.Errorf("the pool knows %v, want the address to be healthy", got)
	}
}

func TestProberKeepsTheLastStatus(t *testing.T) {
	var silent atomic.Bool
	a := startPHP(t, "unix", func(nc net.Conn) {
		if !silent.Load() {
			pageOf(statusPage)(nc)
		}
	})
	p := StartProber(new(fakePool), []netaddr.Addr{a}, ProbeOptions{StatusPath: "/status", Interval: 5 * time.Millisecond})
	defer p.Stop()
	netpolltest.Await(t, "a status", func() bool { return p.Statuses()[a].AcceptedConn == 7 })
	silent.Store(true)
	netpolltest.Await(t, "it is forgotten when none comes", func() bool { return len(p.Statuses()) == 0 })
}

// A PHP-FPM whose workers are all taken accepts, or has a full backlog, and does not answer. Whether that is a failure
// depends on whose requests they work on.
func TestAPingThatWaitsForAWorkerIsNoFailure(t *testing.T) {
	for _, tt := range []struct {
		name     string
		network  string
		start    func(t *testing.T, network string) netaddr.Addr
		requests bool
		want     fcgi.Health
	}{
		{"unix, silent, with requests", "unix", startSilent, true, fcgi.Busy},
		{"tcp, silent, with requests", "tcp", startSilent, true, fcgi.Busy},
		{"unix, silent, without requests", "unix", startSilent, false, fcgi.Failing},
		{"tcp, silent, without requests", "tcp", startSilent, false, fcgi.Failing},
		{"unix, a full backlog, with requests", "unix", startFull, true, fcgi.Busy},
		{"unix, a full backlog, without requests", "unix", startFull, false, fcgi.Failing},
		{"a wrong answer, with requests", "unix", startWrong, true, fcgi.Failing},
		{"nothing there, with requests", "unix", func(t *testing.T, _ string) netaddr.Addr { return noListener(t) }, true, fcgi.Failing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := tt.start(t, tt.network)
			pool := new(fakePool)
			pool.busy.Store(tt.requests)
			changes := make(chan fcgi.Health, 10)
			p := StartProber(pool, []netaddr.Addr{a}, ProbeOptions{
				PingPath: "/ping", Interval: 100 * time.Millisecond,
				Changed: func(_ netaddr.Addr, h fcgi.Health, _ error) { changes <- h },
			})
			defer p.Stop()
			if got := netpolltest.Receive(t, "a change", changes); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if got := pool.health(a); got != tt.want {
				t.Errorf("the pool knows %v, want %v", got, tt.want)
			}
			if tt.want == fcgi.Busy { // until the requests are done
				pool.busy.Store(false)
				if got := netpolltest.Receive(t, "another change", changes); got != fcgi.Failing {
					t.Errorf("without the requests: got %v, want %v", got, fcgi.Failing)
				}
			}
		})
	}
}

// startSilent starts what accepts and says nothing.
func startSilent(t *testing.T, network string) netaddr.Addr {
	return startPHP(t, network, func(nc net.Conn) { awaitEnd(nc) })
}

func startWrong(t *testing.T, network string) netaddr.Addr {
	return startPHP(t, network, pageOf("Status: 500 Internal Server Error\r\n\r\nsorry"))
}

// startFull starts what listens and accepts nothing, with a backlog that is full.
func startFull(t *testing.T, network string) netaddr.Addr {
	l := netpolltest.Listen(t, network)
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.UnixListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), 0) })
	for {
		nc, err := net.Dial(network, l.Addr().String())
		if err != nil {
			return netaddr.Addr{Network: network, Address: l.Addr().String()}
		}
		t.Cleanup(func() { nc.Close() })
	}
}

func TestProberStopsInTheMiddleOfAProbe(t *testing.T) {
	asked := make(chan struct{}, 100)
	a := startPHP(t, "unix", func(nc net.Conn) {
		asked <- struct{}{}
		awaitEnd(nc)
	})
	p := StartProber(new(fakePool), []netaddr.Addr{a}, ProbeOptions{PingPath: "/ping", Interval: time.Hour})
	netpolltest.Receive(t, "a probe", asked)
	_ = netpolltest.WaitFor(t, "the end of the prober", func() error { p.Stop(); return nil })
	p.Stop()
}

func TestProberWithoutAPathAsksForNothing(t *testing.T) {
	a := startPHP(t, "unix", func(net.Conn) { t.Error("PHP-FPM was asked") })
	p := StartProber(new(fakePool), []netaddr.Addr{a}, ProbeOptions{})
	p.Stop()
	if got := p.Statuses(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}
