package gate

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// shutdown shuts the gate down in a goroutine. The context ends when the test says so.
func (s *stand) shutdown(grace time.Duration) (timeIsUp context.CancelFunc, done <-chan error) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx, grace) }()
	await(s.t, "nothing is accepted", func() bool {
		nc, err := net.Dial("unix", s.addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	return cancel, ended
}

func pending(t testing.TB, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Errorf("%s: the shutdown is over: %v", what, err)
	case <-time.After(10 * time.Millisecond):
	}
}

func TestShutdownServesAllThatIsThere(t *testing.T) {
	s := newStand(t, nil)
	idle := s.ask()
	s.php.next().end(page + "x")
	idle.want("x")
	first := s.ask(session("one")...)
	holder := s.php.next()
	waiting := s.ask(session("one")...)
	s.waiters(1)
	_, done := s.shutdown(0)
	if got := idle.response(); got.err == nil {
		t.Errorf("an idle conn: got %+v, want its end", got)
	}
	pending(t, "two requests are there", done)
	holder.end(page + "first")
	first.want("first")
	s.php.next().end(page + "second")
	waiting.want("second")
	if err := receive(t, "the end of the shutdown", done); err != nil {
		t.Errorf("got %v", err)
	}
	if n := s.Conns(); n != 0 {
		t.Errorf("%d conns are left", n)
	}
}

func TestShutdownSendsWaitersAwayWhenTimeIsUp(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Upstream.MaxConnections = 1 })
	first := s.ask(session("one")...)
	holder := s.php.next()
	waiting := s.ask(session("one")...)
	s.waiters(1)
	queueing := s.ask() // for a connection to PHP-FPM
	await(t, "it queues", func() bool { return s.Stats().Pool.Queued == 1 })
	timeIsUp, done := s.shutdown(patience)
	pending(t, "two requests wait", done)
	timeIsUp()
	for _, b := range []*browser{waiting, queueing} {
		if got := b.wantStatus("503"); !strings.Contains(got.body, "restarted") || !strings.Contains(got.stderr, "shutting down") {
			t.Errorf("got %+v", got)
		}
	}
	pending(t, "a script runs", done)
	holder.end(page + "first")
	first.want("first")
	if err := receive(t, "the end of the shutdown", done); err != nil {
		t.Errorf("got %v, want none: all requests came to their end", err)
	}
}

func TestShutdownBreaksConnsWhenGraceIsOver(t *testing.T) {
	s := newStand(t, func(o *Options) { o.Policy.AbandonAfter = time.Hour })
	silent := s.ask(session("one")...)
	a := s.php.next()
	begun := s.ask(session("two")...)
	b := s.php.next()
	b.send(page + "half")
	if _, _, _, err := readRecord(begun); err != nil {
		t.Fatal(err)
	}
	timeIsUp, done := s.shutdown(10 * time.Millisecond)
	timeIsUp()
	if err := receive(t, "the end of the shutdown", done); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cause of its context", err)
	}
	if got := begun.response(); got.err == nil {
		t.Errorf("got %+v, want a response that does not look whole", got)
	}
	// The other one is answered, if its conn is not closed before that.
	if got := silent.response(); got.err == nil && !strings.HasPrefix(got.header, "Status: 503") {
		t.Errorf("got %+v, want no response, or that of a gate that shuts down", got)
	}
	a.die()
	b.die()
	s.unlocked()
}

func TestShutdownOfAGateThatDoesNothing(t *testing.T) {
	s := newStand(t, nil)
	_, done := s.shutdown(0)
	if err := receive(t, "the end of the shutdown", done); err != nil {
		t.Errorf("got %v", err)
	}
	if err := s.Shutdown(context.Background(), 0); err != nil {
		t.Errorf("a second time: got %v", err)
	}
	if err := s.Serve(listen(t)); err != nil {
		t.Errorf("serve after it: got %v", err)
	}
}

func TestServeTakesSeveralListeners(t *testing.T) {
	s := newStand(t, nil)
	l := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	a := s.ask()
	s.addr = l.Addr().String()
	b := s.ask()
	for range 2 {
		s.php.next().end(page + "x")
	}
	a.want("x")
	b.want("x")
	_, done := s.shutdown(0)
	for _, ended := range []<-chan error{served, done} {
		if err := receive(t, "the end of both", ended); err != nil {
			t.Errorf("got %v", err)
		}
	}
}

func TestServeOfNoSocketIsRefused(t *testing.T) {
	g := New(Options{}, hclog.NewNullLogger())
	if err := g.Serve(noSocket{}); err == nil {
		t.Error("got no error")
	}
}

type noSocket struct{ net.Listener }

func (noSocket) Addr() net.Addr { return &net.UnixAddr{} }
func (noSocket) Close() error   { return nil }

func TestConfigureIsForTheRequestsThatCome(t *testing.T) {
	s := newStand(t, nil)
	first := s.ask(session("one")...)
	holder := s.php.next()
	waiting := s.ask(session("one")...)
	s.waiters(1)
	other := newPHP(t)
	s.Configure(s.options(func(o *Options) {
		o.Upstream.Addrs[0] = other.addr
		o.Policy.MaxWait = 0
	}))
	s.ask(session("one")...).wantStatus("503") // by the new ones: the lock is the same
	holder.end(page + "first")
	first.want("first")
	s.php.next().end(page + "second") // by the old ones, at the old place
	waiting.want("second")
	next := s.ask(session("one")...)
	other.next().end(page + "third")
	next.want("third")
	first.again(session("one")...) // on a conn that is older
	other.next().end(page + "fourth")
	first.want("fourth")
}

func TestConfigureSaysWhenTheLastRequestOfTheOldOptionsHasEnded(t *testing.T) {
	s := newStand(t, nil)
	first := s.ask()
	one := s.php.next()
	second := s.ask()
	two := s.php.next()
	ended := s.Configure(s.options(nil))
	third := s.ask()
	three := s.php.next()
	one.end(page + "x")
	first.want("x")
	select {
	case <-ended:
		t.Fatal("told of the end while a request of the old options was there")
	default:
	}
	two.end(page + "x")
	second.want("x")
	receive(t, "the end of the old options", ended)
	three.end(page + "x")
	third.want("x")
	receive(t, "the end of options that no request uses", s.Configure(s.options(nil)))
}

func TestConfigureKeepsNoConnectionsToTheOldPlace(t *testing.T) {
	s := newStand(t, nil)
	b := s.ask()
	s.php.next().end(page + "x")
	b.want("x")
	old := s.setup.Load().pool
	if got := old.Stats(); got.Idle != 1 {
		t.Fatalf("got %+v, want an idle connection", got)
	}
	s.Configure(s.options(nil))
	if got := old.Stats(); got.Open != 0 {
		t.Errorf("got %+v, want none", got)
	}
}

func TestNoMoreConnsThanAllowedAreServed(t *testing.T) {
	s := newStand(t, func(o *Options) { o.MaxConns = 3 })
	most := 0
	var all []*browser
	for range 20 {
		all = append(all, s.ask())
		most = max(most, s.Conns())
	}
	await(t, "three requests run", func() bool { return len(s.php.running) == 3 })
	for i := range 50 {
		most = max(most, s.Conns())
		if i%10 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if most > 3 {
		t.Errorf("%d conns were served at once, want 3", most)
	}
	var served sync.WaitGroup
	for _, b := range all {
		served.Go(func() {
			b.want("x")
			b.Close()
		})
	}
	for i := range all {
		if i == 7 { // no limit from now on
			s.Configure(s.options(func(o *Options) { o.MaxConns = 0 }))
		}
		s.php.next().end(page + "x")
	}
	served.Wait()
}

func TestMaxConnsEndsTheConnThatHasIdledLongest(t *testing.T) {
	s := newStand(t, func(o *Options) { o.MaxConns = 3 })
	served := func(b *browser) {
		t.Helper()
		s.php.next().end(page + "x")
		b.want("x")
		await(t, "the conn idles", func() bool { return s.idle() > 0 })
	}
	busy := s.ask()
	script := s.php.next()
	var kept []*browser
	for n := range 2 {
		kept = append(kept, s.ask())
		s.php.next().end(page + "x")
		kept[n].want("x")
		await(t, "the conn idles", func() bool { return s.idle() == n+1 })
	}
	served(s.ask())
	if _, err := io.Copy(io.Discard, kept[0]); err != nil {
		t.Errorf("the conn that has idled longest: got %v, want its end", err)
	}
	kept[1].again()
	served(kept[1])
	script.end(page + "busy")
	busy.want("busy")
}

func TestMaxConnsLetsTheNextInWhenOneBeginsToIdle(t *testing.T) {
	s := newStand(t, func(o *Options) { o.MaxConns = 1 })
	a := s.ask()
	script := s.php.next()
	b := s.ask()
	got := b.gets()
	time.Sleep(2 * roomPause)
	s.php.none(t)
	script.end(page + "a")
	a.want("a")
	s.php.next().end(page + "b")
	if r := receive(t, "the second conn is served", got); r.body != "b" {
		t.Errorf("got %+v", r)
	}
}

// idle returns how many conns wait for their next request.
func (s *stand) idle() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if !c.IdleSince().IsZero() {
			n++
		}
	}
	return n
}

func TestShutdownEndsTheWaitForRoom(t *testing.T) {
	s := newStand(t, func(o *Options) { o.MaxConns = 1 })
	a := s.ask()
	script := s.php.next()
	s.ask() // waits: it is served if it has been accepted already
	_, done := s.shutdown(0)
	script.end(page + "a")
	a.want("a")
	var err error
	select {
	case waiting := <-s.php.running:
		waiting.end(page + "b")
		err = receive(t, "the end of the shutdown", done)
	case err = <-done:
	}
	if err != nil {
		t.Errorf("got %v", err)
	}
}
