package fcgi

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// goneAndBack is a PHP-FPM that is not there yet.
func goneAndBack(t *testing.T, network string) (addr netaddr.Addr, start func()) {
	t.Helper()
	l := listen(t, network)
	addr = netaddr.Addr{Network: network, Address: l.Addr().String()}
	l.Close()
	return addr, func() {
		t.Helper()
		_ = os.Remove(addr.Address)
		l, err := net.Listen(network, addr.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}

func TestPHPFPMsReturnIsAwaited(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		for name, max := range map[string]int{"without max_connections": 0, "with": 2} {
			t.Run(network+" "+name, func(t *testing.T) {
				t.Parallel()
				addr, restart := goneAndBack(t, network)
				var away, back atomic.Int64
				p := newPool(t, func(o *PoolOptions) {
					o.UnreachableWait, o.MaxConnections = patience, max
					o.Away = func(error) { away.Add(1) }
					o.Back = func(_ time.Duration, n int) { back.Store(int64(n)) }
				}, addr)
				var waiting []<-chan turn
				for range 4 {
					waiting = append(waiting, getLater(t, context.Background(), p))
				}
				p.check(t, 0, 0, 4)
				restart()
				for i, w := range waiting {
					got := receive(t, "a connection", w)
					if got.err != nil {
						t.Fatalf("request %d: got %v", i, got.err)
					}
					p.put(got.u, false)
				}
				if away.Load() != 1 || back.Load() != 4 || p.Stats().Returns != 4 {
					t.Errorf("got %d outages and %d that waited, want 1 and 4", away.Load(), back.Load())
				}
				await(t, "no place is taken", func() bool { return p.Stats().Open == 0 && p.backends[0].busy == 0 })
			})
		}
	}
}

func TestAPHPFPMThatStaysAwayIsDown(t *testing.T) {
	addr, restart := goneAndBack(t, "unix")
	p := newPool(t, func(o *PoolOptions) { o.UnreachableWait = time.Second }, addr)
	waiting := []<-chan turn{getLater(t, context.Background(), p), getLater(t, context.Background(), p)}
	for _, w := range waiting {
		if got := receive(t, "the end of the wait", w); !errors.Is(got.err, ErrUnreachable) {
			t.Errorf("got %v, want ErrUnreachable", got.err)
		}
	}
	p.options.UnreachableWait = patience // it would be seen if the next request waited
	if _, err := p.get(context.Background()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
	restart()
	connect(t, p)
	if p.away != nil {
		t.Error("it still counts as away after a connection")
	}
}

func TestARequestThatIsGivenUpDoesNotAwaitPHPFPM(t *testing.T) {
	addr, _ := goneAndBack(t, "unix")
	p := newPool(t, func(o *PoolOptions) { o.UnreachableWait = patience }, addr)
	ctx, cancel := context.WithCancelCause(context.Background())
	w := getLater(t, ctx, p)
	cancel(ErrHungUp)
	if got := receive(t, "its end", w); !errors.Is(got.err, ErrHungUp) {
		t.Errorf("got %v, want ErrHungUp", got.err)
	}
	p.options.QueueTimeout = time.Millisecond
	if _, err := p.get(context.Background()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("after queue_timeout: got %v, want ErrUnreachable", err)
	}
	p.check(t, 0, 0, 0)
}

func TestAPausedPoolHoldsRequests(t *testing.T) {
	p := newPool(t, nil, startIdle(t, "unix"))
	running, idle := connect(t, p), connect(t, p)
	p.put(idle, true)
	p.Pause()
	p.check(t, 1, 0, 0)
	waiting := []<-chan turn{getLater(t, context.Background(), p), getLater(t, context.Background(), p)}
	if n := p.Stats().Running; n != 1 {
		t.Errorf("got %d running, want 1", n)
	}
	p.put(running, true)
	p.check(t, 0, 0, 2)
	p.Resume()
	for _, w := range waiting {
		got := receive(t, "a connection", w)
		if got.err != nil {
			t.Fatal(got.err)
		}
		p.put(got.u, false)
	}
	p.Pause()
	p.options.QueueTimeout = time.Millisecond
	if _, err := p.get(context.Background()); !errors.Is(err, ErrPaused) {
		t.Errorf("got %v, want ErrPaused", err)
	}
}

func TestRequestsThatWaitForPHPFPMAreBounded(t *testing.T) {
	addr, restart := goneAndBack(t, "unix")
	for name, c := range map[string]struct {
		pause bool
		want  error
	}{"away": {false, ErrUnreachable}, "paused": {true, ErrPaused}} {
		p := newPool(t, func(o *PoolOptions) { o.UnreachableWait, o.MaxConnections = patience, 1 }, addr)
		if c.pause {
			p.Pause()
		}
		ctx, cancel := context.WithCancel(context.Background())
		for range maxAwaiting {
			go p.get(ctx)
		}
		await(t, "the queue is full", func() bool { return p.Stats().Queued == maxAwaiting })
		if _, err := p.get(context.Background()); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		cancel()
		await(t, "the queue is empty", func() bool { return p.Stats().Queued == 0 })
	}
	restart() // ends the knocking
}
