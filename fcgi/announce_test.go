package fcgi

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// awaitsReturn has a pool await PHP-FPM's return.
func awaitsReturn(o *PoolOptions) { o.UnreachableWait = patience }

// deaf listens and accepts nothing, as a PHP-FPM whose workers are quitting.
func deaf(t *testing.T) net.Listener {
	t.Helper()
	l := listen(t, "unix")
	t.Cleanup(func() { l.Close() })
	return l
}

// inBacklog waits until a request stands in the backlog.
func inBacklog(t *testing.T, p *Pool) {
	t.Helper()
	await(t, "it stands in the backlog", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.unanswered.Len() == 1
	})
}

func TestARequestInTheBacklogOfAPHPFPMThatEndsIsSentAgain(t *testing.T) {
	l := deaf(t)
	addr := netaddr.Addr{Network: "unix", Address: l.Addr().String()}
	p := newPool(t, awaitsReturn, addr)
	var sending atomic.Int64
	run := start(t, p, "unix", func(x *Exchange) {
		x.Sending = func() error {
			sending.Add(1)
			return nil
		}
	}, requestOf(1, true, "body"))
	inBacklog(t, p)
	time.Sleep(2 * takenSoon)
	if n := sending.Load(); n != 0 {
		t.Error("Sending is called before a worker has the request")
	}
	l.Close()
	_ = os.Remove(addr.Address)
	again, err := net.Listen("unix", addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan string, 1)
	go func() {
		for {
			nc, err := again.Accept()
			if err != nil {
				return
			}
			php := &phpConn{peer: newPeer(t, nc)}
			if r, err := php.request(); err == nil { // else it was the pool's knock
				served <- r.stdin
				php.answer(r.id, "X-Echo: 1\r\n\r\n"+r.stdin)
			}
			nc.Close()
		}
	}()
	t.Cleanup(func() { again.Close() })
	if got := run.web.response(1).stdout; got != "X-Echo: 1\r\n\r\nbody" {
		t.Errorf("got %q", got)
	}
	if err := run.result(); err != nil || sending.Load() != 1 || p.Stats().Retries == 0 {
		t.Errorf("got %v, %d calls of Sending and %+v, want one call and a retry", err, sending.Load(), p.Stats())
	}
	if got := <-served; got != "body" {
		t.Errorf("PHP-FPM got %q", got)
	}
}

func TestARequestLeavesTheBacklogWhenItsWebServerHangsUp(t *testing.T) {
	l := deaf(t)
	p := newPool(t, awaitsReturn, netaddr.Addr{Network: "unix", Address: l.Addr().String()})
	run := start(t, p, "unix", nil, requestOf(1, true, "body"))
	inBacklog(t, p)
	run.web.Close()
	if err := run.result(); !errors.Is(err, ErrHungUp) {
		t.Errorf("got %v, want ErrHungUp", err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if r, err := (&phpConn{peer: newPeer(t, nc)}).request(); err == nil {
		t.Errorf("PHP-FPM gets the request nevertheless: %q", r.stdin)
	}
	p.check(t, 0, 0, 0)
}

// TestAnAnnouncedRequestIsSentAgainIfItsWorkerStops before it gets more than begin request. That is no use of a
// connection that was there, and takes none from those that are counted.
func TestAnAnnouncedRequestIsSentAgainIfItsWorkerStops(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	p := newPool(t, awaitsReturn, startPHP(t, "unix", func(php *phpConn) {
		if php.n > 1 {
			echo(php)
			return
		}
		_, _, _ = readRecord(php)
		<-stop
		php.Close()
		close(stopped)
	}))
	run := start(t, p, "unix", func(x *Exchange) {
		x.Sending = func() error {
			close(stop)
			<-stopped
			return nil
		}
	}, requestOf(1, true, "body"))
	if got := run.web.response(1).stdout; got != "X-Echo: 1\r\n\r\nbody" {
		t.Errorf("got %q", got)
	}
	if err := run.result(); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.Dials != 2 || s.Retries != 1 || s.Reuses != 0 {
		t.Errorf("got %+v, want two dials, one retry and no reuse", s)
	}
}

// A kept connection that is closed unread is replaced by one that is not taken: Abort must still end the wait.
func TestAbortEndsTheWaitForAnotherConnection(t *testing.T) {
	x := &Exchange{pool: newPool(t, awaitsReturn, netaddr.Addr{Network: "unix", Address: deaf(t).Addr().String()})}
	c, web := newConn(t, "unix", Limits{})
	web.send(requestOf(1, true, ""))
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	x.Request = r
	old, err := x.pool.get(context.Background())
	if err != nil || x.link.set(old, c.nc) != nil {
		t.Fatal(err)
	}
	old.reused = true
	done := make(chan error, 1)
	go func() {
		_, err := x.reconnect()
		done <- err
	}()
	await(t, "it waits", func() bool {
		x.link.mu.Lock()
		defer x.link.mu.Unlock()
		return x.link.giveUp != nil
	})
	x.Abort(ErrKilled)
	if err := receive(t, "the end of the wait", done); !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want ErrKilled", err)
	}
}

// A PHP worker that has begin request alone waits for the rest, and its end is no request.
func TestPHPRunsNothingForBeginRequestAlone(t *testing.T) {
	f := startFPM(t, "unix", rig.PHPOptions{Workers: 1})
	f.script("x.php", "echo 'x';")
	p := f.dial()
	request := f.get(1, false, "x.php", "")
	p.send(request[:headerLen+beginBodyLen])
	await(t, "a worker has read it", func() bool { return notRead(t, p) == 0 })
	p.Close()
	p = f.dial()
	p.send(request)
	if got := p.response(1).body(); got != "x" {
		t.Errorf("got %q, want x", got)
	}
}
