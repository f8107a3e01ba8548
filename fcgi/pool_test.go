package fcgi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// startIdle listens and keeps each connection open until the pool closes it.
func startIdle(t testing.TB, network string) netaddr.Addr {
	return startPHP(t, network, (*phpConn).ended)
}

func connect(t testing.TB, p *Pool) *upstream {
	t.Helper()
	u, err := p.get(context.Background())
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	t.Cleanup(func() { u.nc.Close() })
	return u
}

// getLater gets a connection in a goroutine that is in the queue when getLater returns.
func getLater(t testing.TB, ctx context.Context, p *Pool) <-chan turn {
	t.Helper()
	before := p.Stats().Queued
	got := make(chan turn, 1)
	go func() {
		u, err := p.get(ctx)
		got <- turn{u, err}
	}()
	await(t, "it waits in the queue", func() bool { return p.Stats().Queued == before+1 })
	return got
}

type turn struct {
	u   *upstream
	err error
}

func (p *Pool) check(t testing.TB, open, idle, queued int) {
	t.Helper()
	if s := p.Stats(); s.Open != open || s.Idle != idle || s.Queued != queued {
		t.Errorf("got %+v, want %d open, %d idle, %d queued", s, open, idle, queued)
	}
}

func TestPoolUsesConnectionsAgain(t *testing.T) {
	p := newPool(t, nil, startIdle(t, "unix"))
	a, b := connect(t, p), connect(t, p)
	p.check(t, 2, 0, 0)
	p.put(a, true)
	p.put(b, true)
	p.check(t, 2, 2, 0)
	if c := connect(t, p); c != b || !c.reused {
		t.Errorf("got another connection than the freshest")
	}
	p.put(b, false)
	p.check(t, 1, 1, 0)
	if s := p.Stats(); s.Dials != 2 || s.Reuses != 1 {
		t.Errorf("got %+v, want two dials and one reuse", s)
	}
}

// Over TCP nothing shows whether a worker is back from its script, nor what became of a request that a relay took.
func TestConnectionsOverTCPServeOneRequest(t *testing.T) {
	p := newPool(t, nil, startIdle(t, "tcp"))
	a := connect(t, p)
	p.put(a, true)
	p.check(t, 0, 0, 0)
	if b := connect(t, p); b == a || b.reused {
		t.Errorf("got a connection that was used before")
	}
	p.check(t, 1, 0, 0)
}

func TestPoolGivesUpConnectionsInTime(t *testing.T) {
	for name, edit := range map[string]func(*PoolOptions){
		"idle for too long": func(o *PoolOptions) { o.Idle = 20 * time.Millisecond },
		"used for too long": func(o *PoolOptions) { o.Reuse, o.Idle = 30*time.Millisecond, 10*time.Millisecond },
		"idle for no time":  func(o *PoolOptions) { o.Idle = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var open atomic.Int64
			addr := startPHP(t, "unix", func(p *phpConn) {
				open.Add(1)
				p.ended()
				open.Add(-1)
			})
			p := newPool(t, edit, addr)
			a, b := connect(t, p), connect(t, p)
			await(t, "two connections", func() bool { return open.Load() == 2 })
			p.put(a, true)
			p.put(b, true)
			await(t, "they are closed", func() bool { return open.Load() == 0 })
			p.check(t, 0, 0, 0)
		})
	}
}

func TestPoolDoesNotUseAConnectionForLongerThanItMay(t *testing.T) {
	p := newPool(t, nil, startIdle(t, "unix"))
	u := connect(t, p)
	u.dialled = time.Now().Add(-p.options.Reuse)
	p.put(u, true)
	p.check(t, 0, 0, 0)
	none := newPool(t, func(o *PoolOptions) { o.Reuse = 0 }, startIdle(t, "unix"))
	none.put(connect(t, none), true)
	none.check(t, 0, 0, 0)
}

func TestQueueIsFirstInFirstOut(t *testing.T) {
	for name, reusable := range map[string]bool{"handed on": true, "closed": false} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t, func(o *PoolOptions) { o.MaxConnections = 2 }, startIdle(t, "unix"))
			a, b := connect(t, p), connect(t, p)
			var waiting []<-chan turn
			for range 5 {
				waiting = append(waiting, getLater(t, context.Background(), p))
			}
			p.check(t, 2, 0, 5)
			busy := []*upstream{a, b}
			for i, w := range waiting {
				p.put(busy[0], reusable)
				got := receive(t, "the next turn", w)
				if got.err != nil || got.u.reused != reusable {
					t.Fatalf("turn %d: got %+v", i, got)
				}
				p.check(t, 2, 0, 4-i)
				busy = append(busy[1:], got.u)
			}
			p.put(busy[0], true)
			p.put(busy[1], true)
			p.check(t, 2, 2, 0)
		})
	}
}

func TestWaitInTheQueueEnds(t *testing.T) {
	p := newPool(t, func(o *PoolOptions) { o.MaxConnections, o.QueueTimeout = 1, 30*time.Millisecond }, startIdle(t, "unix"))
	u := connect(t, p)
	if _, err := p.get(context.Background()); !errors.Is(err, ErrQueueTimeout) {
		t.Errorf("got %v, want ErrQueueTimeout", err)
	}
	p.options.QueueTimeout = time.Hour
	ctx, cancel := context.WithCancelCause(context.Background())
	w := getLater(t, ctx, p)
	cancel(errStop)
	if got := receive(t, "the end of the wait", w); !errors.Is(got.err, errStop) {
		t.Errorf("got %v, want the cause of the context", got.err)
	}
	p.check(t, 1, 0, 0)
	p.put(u, true)
	p.check(t, 1, 1, 0)
}

// A request that leaves the queue at the moment of a hand-over must not take the place with it.
func TestNoPlaceIsLostWhenWaitersLeave(t *testing.T) {
	for name, reusable := range map[string]bool{"handed on": true, "closed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPool(t, func(o *PoolOptions) { o.MaxConnections = 1 }, startIdle(t, "unix"))
			left := 0
			for range 300 {
				u := connect(t, p)
				ctx, cancel := context.WithCancel(context.Background())
				w := getLater(t, ctx, p)
				var both sync.WaitGroup
				both.Go(cancel)
				both.Go(func() { p.put(u, reusable) })
				both.Wait()
				if got := receive(t, "the end of the wait", w); got.err == nil {
					p.put(got.u, true)
				} else {
					left++
				}
				if s := p.Stats(); s.Open != s.Idle || s.Queued != 0 || s.Open > 1 {
					t.Fatalf("got %+v, want no more than an idle connection", s)
				}
			}
			t.Logf("%d of 300 left", left)
			busy := 0
			for _, b := range p.backends {
				busy += b.busy
			}
			if busy != 0 {
				t.Errorf("%d connections are counted as busy, want none", busy)
			}
		})
	}
}

func TestTurnThatComesInTheLastMomentGoesBack(t *testing.T) {
	for name, handOn := range map[string]bool{"a connection": true, "the right to make one": false} {
		p := newPool(t, func(o *PoolOptions) { o.MaxConnections = 1 }, startIdle(t, "unix"))
		u := connect(t, p)
		ctx, cancel := context.WithCancel(context.Background())
		w := getLater(t, ctx, p)
		p.mu.Lock()
		cancel()
		time.Sleep(10 * time.Millisecond) // the waiter gives up, and has to wait for the lock to leave the queue
		turn := p.next()
		if handOn {
			turn <- u
		} else {
			u.backend.busy--
			turn <- nil
		}
		p.mu.Unlock()
		if got := receive(t, "the end of the wait", w); !errors.Is(got.err, context.Canceled) {
			t.Errorf("%s: got %v and %v, want the end of the context", name, got.u, got.err)
		}
		if s := p.Stats(); s.Open != s.Idle || s.Queued != 0 || (s.Idle == 1) != handOn {
			t.Errorf("%s: got %+v", name, s)
		}
		if busy := p.backends[0].busy; busy != 0 {
			t.Errorf("%s: %d connections are counted as busy, want none", name, busy)
		}
	}
}

func TestPlacesAreNeverExceededAndNeverLost(t *testing.T) {
	p := newPool(t, func(o *PoolOptions) { o.MaxConnections, o.Idle = 3, time.Millisecond }, startIdle(t, "unix"))
	var busy atomic.Int64
	var users sync.WaitGroup
	for i := range 12 {
		users.Go(func() {
			for j := range 100 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(j%5)*200*time.Microsecond)
				u, err := p.get(ctx)
				if err == nil && u.reused && j%7 == 0 {
					u, err = p.redial(context.Background(), u)
				}
				if err == nil {
					if n := busy.Add(1); n > 3 || p.Stats().Open > 3 {
						t.Errorf("%d connections are in use, and %+v, want no more than 3", n, p.Stats())
					}
					busy.Add(-1)
					p.put(u, (i+j)%3 > 0)
				}
				cancel()
			}
		})
	}
	users.Wait()
	await(t, "all is closed", func() bool { s := p.Stats(); return s.Open == 0 && s.Queued == 0 })
	if got := p.backends[0].busy; got != 0 {
		t.Errorf("%d connections are counted as busy, want none", got)
	}
}

func TestRedialReplacesTheConnectionAndClosesThoseOfItsAge(t *testing.T) {
	p := newPool(t, nil, startIdle(t, "unix"))
	first, second := connect(t, p), connect(t, p)
	p.put(first, true)
	p.put(second, true)
	u := connect(t, p)
	p.check(t, 2, 1, 0)
	fresh, err := p.redial(context.Background(), u)
	if err != nil || fresh.reused || fresh == u {
		t.Errorf("got %+v and %v, want a fresh connection", fresh, err)
	}
	p.check(t, 1, 0, 0)
	p.put(fresh, false)
	if busy := p.backends[0].busy; busy != 0 {
		t.Errorf("%d connections are counted as busy, want none", busy)
	}
}

func TestPooledConnectionIsReplacedIfAnythingCameOnIt(t *testing.T) {
	addr := startPHP(t, "unix", func(p *phpConn) {
		_, _ = p.Write(AppendRecord(nil, TypeStdout, 1, []byte("late"))) // the last one may have ended by then
		p.ended()
	})
	for name, take := range map[string]func(*Pool, *upstream) *upstream{
		"from the pool": func(p *Pool, u *upstream) *upstream {
			p.put(u, true)
			return connect(t, p)
		},
		"from the queue": func(p *Pool, u *upstream) *upstream {
			w := getLater(t, context.Background(), p)
			p.put(u, true)
			return receive(t, "the turn", w).u
		},
	} {
		p := newPool(t, func(o *PoolOptions) { o.MaxConnections = 1 }, addr)
		u := connect(t, p)
		await(t, "the late bytes", func() bool { return !u.quiet() })
		if got := take(p, u); got == u || got.reused {
			t.Errorf("%s: got the connection with late bytes", name)
		}
		p.check(t, 1, 0, 0)
	}
}

func TestLeastBusyAddressComesFirst(t *testing.T) {
	a, b := startIdle(t, "unix"), startIdle(t, "tcp")
	p := newPool(t, nil, a, b)
	count := map[string]int{}
	var all []*upstream
	for range 10 {
		u := connect(t, p)
		count[u.backend.addr.Network]++
		all = append(all, u)
	}
	if count["unix"] != 5 || count["tcp"] != 5 {
		t.Errorf("got %v, want five each", count)
	}
	for _, u := range all {
		if u.backend.addr == b {
			p.put(u, false)
		}
	}
	for range 5 {
		if u := connect(t, p); u.backend.addr != b {
			t.Error("the busier address was taken")
		}
	}
}

func noListener(t testing.TB) netaddr.Addr {
	return netaddr.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "no-listener")}
}

func TestAddressThatIsDownIsPassedOver(t *testing.T) {
	down, up := noListener(t), startIdle(t, "unix")
	p := newPool(t, nil, down, up)
	for range 5 {
		if u := connect(t, p); u.backend.addr != up {
			t.Errorf("got a connection to %v", u.backend.addr)
		}
	}
	if s := p.Stats(); s.DialErrors != 1 || s.Open != 5 {
		t.Errorf("got %+v, want one failure: the address is passed over after it", s)
	}
	if got, want := p.Addrs(), []AddrStats{{Addr: down, Down: true}, {Addr: up, Busy: 5}}; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p.backends[0].downUntil = time.Now().Add(-time.Second)
	connect(t, p)
	if s := p.Stats(); s.DialErrors != 2 {
		t.Errorf("got %+v, want it to be tried again after a while", s)
	}
}

func TestAddressThatFailsItsProbeIsPassedOverWhileThereIsAnother(t *testing.T) {
	a, b := startIdle(t, "unix"), startIdle(t, "unix")
	p := newPool(t, nil, a, b)
	p.SetHealth(a, Failing)
	for range 4 {
		if u := connect(t, p); u.backend.addr != b {
			t.Error("the failing address was taken")
		}
	}
	if got := p.Addrs(); !got[0].Failing || got[1].Failing || got[1].Busy != 4 {
		t.Errorf("got %+v, want the first to fail and the second to have 4 connections", got)
	}
	if !p.SetHealth(b, Busy) || p.SetHealth(b, Busy) || !p.Addrs()[1].Saturated || !p.IsBusy(b) || p.IsBusy(a) {
		t.Errorf("got %+v, want the second to be busy, and to have become that once", p.Addrs())
	}
	p.SetHealth(b, Failing)
	if u := connect(t, p); u.backend.addr != a {
		t.Error("the busier of two failing addresses was taken")
	}
	p.SetHealth(a, Healthy)
	if u := connect(t, p); u.backend.addr != a {
		t.Error("the address that answers again was not taken")
	}
}

func TestAllAddressesDown(t *testing.T) {
	p := newPool(t, func(o *PoolOptions) { o.MaxConnections = 1 }, noListener(t), noListener(t))
	for range 3 {
		if _, err := p.get(context.Background()); !errors.Is(err, ErrUnreachable) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want ErrUnreachable with its reasons", err)
		}
		p.check(t, 0, 0, 0)
	}
	if s := p.Stats(); s.DialErrors != 6 {
		t.Errorf("got %+v, want each address to be tried each time: there is none else", s)
	}
}

// A dial that its own request gave up says nothing of the address.
func TestGivenUpDialDoesNotMakeAnAddressDown(t *testing.T) {
	full, _ := fullBacklog(t)
	p := newPool(t, nil, full, noListener(t))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the end of the context", err)
	}
	if b := p.backends[0]; !b.downUntil.IsZero() || b.busy != 0 {
		t.Errorf("down until %v, busy %d", b.downUntil, b.busy)
	}
	p.check(t, 0, 0, 0)
}

// fullBacklog listens, and accepts nothing until accept is called. The backlog is full.
func fullBacklog(t testing.TB) (a netaddr.Addr, accept func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	for {
		s, err := netpoll.DialUnix(path)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
	}
	return netaddr.Addr{Network: "unix", Address: path}, func() {
		nfd, _, err := unix.Accept(fd)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { unix.Close(nfd) })
	}
}

func TestFullBacklogIsWaitedFor(t *testing.T) {
	addr, accept := fullBacklog(t)
	p := newPool(t, nil, addr)
	got := make(chan turn, 1)
	go func() {
		u, err := p.get(context.Background())
		got <- turn{u, err}
	}()
	select {
	case w := <-got:
		t.Fatalf("got %v and %v from a full backlog", w.u, w.err)
	case <-time.After(20 * time.Millisecond):
	}
	accept()
	if w := receive(t, "a place in the backlog", got); w.err != nil {
		t.Errorf("got %v", w.err)
	}
}

func TestFullBacklogIsWaitedForNoLongerThanAllowed(t *testing.T) {
	addr, _ := fullBacklog(t)
	p := newPool(t, func(o *PoolOptions) { o.ConnectTimeout = 20 * time.Millisecond }, addr)
	if _, err := p.get(context.Background()); !errors.Is(err, ErrUnreachable) || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v, want ErrUnreachable because of EAGAIN", err)
	}
	p.check(t, 0, 0, 0)
}

// An open connection pins its worker. Where a request may wait for one, none is kept.
func TestNoConnectionIsKeptWhileARequestMayQueueBehindIt(t *testing.T) {
	p := newPool(t, nil, startIdle(t, "unix"))
	a, b := connect(t, p), connect(t, p)
	p.sent(a)
	p.sent(b)
	p.answered(a)
	p.put(a, true)
	p.check(t, 2, 1, 0)
	a = connect(t, p)
	p.mu.Lock()
	b.sent = time.Now().Add(-time.Second) // and still not a byte of its answer
	p.mu.Unlock()
	p.put(a, true)
	p.check(t, 1, 0, 0)
	p.answered(b)
	p.put(b, true)
	p.check(t, 1, 1, 0)

	limited := newPool(t, func(o *PoolOptions) { o.MaxConnections = 2 }, startIdle(t, "unix"))
	a, b = connect(t, limited), connect(t, limited)
	limited.sent(a)
	limited.sent(b)
	b.sent = time.Now().Add(-time.Second)
	limited.put(a, true)
	limited.check(t, 2, 1, 0)
}

func TestClosedPoolKeepsNothing(t *testing.T) {
	p := newPool(t, func(o *PoolOptions) { o.MaxConnections = 2 }, startIdle(t, "unix"))
	a, b := connect(t, p), connect(t, p)
	p.put(a, true)
	p.Close()
	p.check(t, 1, 0, 0)
	c := connect(t, p) // a request that is still on its way
	w := getLater(t, context.Background(), p)
	p.put(b, true)
	if got := receive(t, "the turn", w); got.err != nil {
		t.Errorf("a waiter got %v", got.err)
	} else {
		p.put(got.u, true)
	}
	p.put(c, true)
	p.check(t, 0, 0, 0)
}

func TestAddressesReadAsInTheConfig(t *testing.T) {
	for want, a := range map[string]netaddr.Addr{"unix:/run/php.sock": {Network: "unix", Address: "/run/php.sock"}, "127.0.0.1:9000": {Network: "tcp", Address: "127.0.0.1:9000"}} {
		if got := a.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
