package fcgi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// newRequest returns a request whose head has come, and its web server.
func newRequest(t testing.TB, network string, behind ...[]byte) (*Request, *peer) {
	t.Helper()
	c, web := newConn(t, network, Limits{HeadTimeout: 50 * time.Millisecond})
	web.send(AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1, "A", "1"), joined(behind...))
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	return r, web
}

func TestWaitEndsWhenTheWebServerHangsUp(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for name, behind := range map[string][]byte{
			"all of stdin has come": stdinOf(1, "body"),
			"half of it has come":   stdinOf(1, strings.Repeat("body", 10_000))[:20_000],
			"none of it has come":   nil,
		} {
			r, web := newRequest(t, network, behind)
			done := r.Context().Done()
			select {
			case <-done:
				t.Errorf("%s: the wait ended before the web server hung up", name)
			default:
			}
			web.Close()
			receive(t, name, done)
			if got := context.Cause(r.Context()); !errors.Is(got, ErrHungUp) || !r.HungUp() {
				t.Errorf("%s: got %v and %t, want ErrHungUp", name, got, r.HungUp())
			}
			r.conn.Close()
		}
	})
}

// A request that is to outlive a hang-up does so if all of it has come, be it in the socket.
func TestRequestOutlivesAHangUp(t *testing.T) {
	large := stdinOf(1, strings.Repeat("body", 30_000))
	abort := AppendRecord(nil, TypeAbortRequest, 1, nil)
	both(t, func(t *testing.T, network string) {
		for name, c := range map[string]struct {
			behind   []byte
			outlives bool
		}{
			"no body":                        {stdinOf(1, ""), true},
			"a small body":                   {stdinOf(1, "body"), true},
			"a large body":                   {large, true},
			"a small body without its end":   {AppendRecord(nil, TypeStdin, 1, []byte("body")), false},
			"a part of a small body":         {stdinOf(1, "body")[:10], false},
			"a part of a large body":         {large[:len(large)-9], false},
			"a large body without its end":   {large[:len(large)-8], false},
			"nothing of its body":            {nil, false},
			"a body, and an abort behind it": {joined(stdinOf(1, "body"), abort), false},
		} {
			t.Run(name, func(t *testing.T) {
				for _, seen := range []bool{true, false} {
					conn, web := newConn(t, network, Limits{})
					web.send(AppendBeginRequest(nil, 1, RoleResponder, false), paramsOf(1, "A", "1"))
					r, err := conn.Next()
					if err != nil {
						t.Fatal(err)
					}
					web.send(c.behind)
					r.OutliveHangUp()
					done := r.Context().Done()
					web.Close()
					switch {
					case !c.outlives:
						receive(t, "the end of the wait", done)
					case seen:
						await(t, "the hang-up is noticed", r.Left)
					}
					got := make(chan string, 1)
					pool := newPool(t, nil, startPHP(t, network, func(p *phpConn) {
						if asked, err := p.request(); err == nil {
							got <- asked.stdin
							p.answer(asked.id, "\r\n")
							p.ended()
						}
					}))
					err = pool.RoundTrip(r.Context(), &Exchange{Request: r, AbandonAfter: time.Hour})
					if !c.outlives {
						if !errors.Is(err, ErrHungUp) || !r.HungUp() || r.Left() {
							t.Errorf("got %v, hung up %v and left %v, want ErrHungUp", err, r.HungUp(), r.Left())
						}
						continue
					}
					if body := receive(t, "the request", got); len(body) != contentOf(c.behind) {
						t.Errorf("PHP got %d bytes of the body, want %d", len(body), contentOf(c.behind))
					}
					if err != nil && !errors.Is(err, ErrHungUp) {
						t.Errorf("got %v, want ErrHungUp or none", err)
					}
				}
			})
		}
	})
}

// contentOf returns how many bytes of content records have.
func contentOf(records []byte) (n int) {
	for len(records) > 0 {
		h := ParseHeader(records)
		n += h.ContentLength
		records = records[h.Len():]
	}
	return n
}

func TestHangUpBeforeTheWaitEndsItAtOnce(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		r, web := newRequest(t, network, stdinOf(1, ""))
		web.Close()
		receive(t, "the end of the wait", r.Context().Done())
	})
}

func TestWaitEndsWhenTheRequestIsAborted(t *testing.T) {
	abort := AppendRecord(nil, TypeAbortRequest, 1, nil)
	both(t, func(t *testing.T, network string) {
		r, web := newRequest(t, network, stdinOf(1, ""))
		done := r.Context().Done()
		web.send(abort[:5])
		web.send(abort[5:])
		receive(t, "the end of the wait", done)
		if !r.HungUp() {
			t.Error("the request is not said to be over")
		}
	})
}

func TestAbortOfAnotherRequestEndsNoWait(t *testing.T) {
	r, web := newRequest(t, "unix", stdinOf(1, ""))
	done := r.Context().Done()
	web.send(AppendRecord(nil, TypeAbortRequest, 2, nil))
	select {
	case <-done:
		t.Errorf("the wait ended: %v", r.Context().Err())
	case <-time.After(20 * time.Millisecond):
	}
}

// A web server on a unix socket may say that it has said all, and wait for its answer. TCP cannot tell that from one
// that has gone.
func TestHalfClosedUnixConnGetsItsAnswer(t *testing.T) {
	r, web := newRequest(t, "unix", stdinOf(1, ""))
	done := r.Context().Done()
	if err := web.Conn.(netpoll.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Errorf("the wait ended: %v", r.Context().Err())
	case <-time.After(20 * time.Millisecond):
	}
	if err := r.Respond(Answer{Body: []byte("answer")}); err != nil {
		t.Fatal(err)
	}
	if got := web.response(1); got.stdout != "\r\nanswer" {
		t.Errorf("got %q", got.stdout)
	}
}

func TestWhatComesDuringTheWaitIsThereAfterIt(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		r, web := newRequest(t, network)
		done := r.Context().Done()
		body := strings.Repeat("body", 1000)
		web.send(stdinOf(1, body))
		time.Sleep(60 * time.Millisecond) // longer than HeadTimeout, which no longer counts
		r.stopWatching()
		select {
		case <-done:
			t.Errorf("the wait ended: %v", r.Context().Err())
		default:
		}
		if got, err := readStdin(r); got != body || err != nil {
			t.Errorf("got %d bytes and %v, want %d", len(got), err, len(body))
		}
	})
}

func TestStoppedContextIsNeverDone(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		r, web := newRequest(t, network, stdinOf(1, ""))
		done := r.Context().Done()
		r.stopWatching()
		r.stopWatching() // a second time does nothing
		web.Close()
		r.conn.Shutdown(true)
		if err := r.conn.in.take(); err != nil {
			t.Errorf("take: %v", err)
		}
		if _, err := r.conn.nc.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: got %v, want EOF", err)
		}
		select {
		case <-done:
			t.Errorf("the context ended: %v", r.Context().Err())
		default:
		}
	})
}

func TestContextsOfRequestsOneBehindTheOtherAreNotMixedUp(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		for i := range 200 {
			web.send(requestOf(1, true, ""))
			r, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			done := r.Context().Done()
			if i == 199 {
				web.Close()
				receive(t, "the end of the last wait", done)
				return
			}
			if err := r.Respond(Answer{Body: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
			if got := web.response(1); got.stdout != fmt.Sprint("\r\n", i) {
				t.Fatalf("got %q to request %d", got.stdout, i)
			}
		}
	})
}

// The context package asks for Done in a goroutine of its own, which may be late: its request can be over by then, and
// the conn busy with the next one.
func TestDoneThatIsAskedForTooLateDisturbsNobody(t *testing.T) {
	c, web := newConn(t, "unix", Limits{})
	for range 2 {
		web.send(requestOf(1, true, ""))
		r, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		ctx := r.Context()
		derived, cancel := context.WithCancel(ctx)
		late := make(chan struct{})
		go func() {
			defer close(late)
			<-derived.Done()
			for range 100 {
				ctx.Done()
				_ = ctx.Err()
			}
		}()
		if err := r.Respond(Answer{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		web.response(1)
		cancel()
		web.send(requestOf(1, true, ""))
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		receive(t, "the late one", late)
		if err := c.req.Respond(Answer{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		web.response(1)
	}
}

// TestAnAbortEndsARequestWhoseBodyIsStillToCome, wherever it comes: nothing else may come from that web server.
func TestAnAbortEndsARequestWhoseBodyIsStillToCome(t *testing.T) {
	head := joined(AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1, "A", "1"))
	abort := AppendRecord(nil, TypeAbortRequest, 1, nil)
	body := AppendStream(nil, TypeStdin, 1, []byte("body"))
	for name, c := range map[string]struct {
		come  []byte
		later bool // the abort comes when PHP-FPM is there
		late  bool // the body is sent before Late has returned
	}{
		"with the head":                         {head, false, false},
		"with the body":                         {joined(head, body), false, false},
		"after the head":                        {head, true, false},
		"after the body":                        {joined(head, body), true, false},
		"with the head of a slow request":       {head, false, true},
		"with the body of a slow request":       {joined(head, body), false, true},
		"with a longer body of a slow request":  {joined(head, body, body, body), false, true},
		"after the head of a slow request":      {head, true, true},
		"after the body of a slow request":      {joined(head, body), true, true},
		"after a longer body of a slow request": {joined(head, body, body, body), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			onAll(t, func(t *testing.T, web, php string) {
				begun := make(chan struct{})
				pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
					_, _ = p.head()
					close(begun)
					p.ended()
				}))
				come := c.come
				if !c.later {
					come = joined(come, abort)
				}
				run := start(t, pool, web, func(x *Exchange) {
					if c.late {
						x.Late, x.ContentLength = func(context.Context) {}, 100
					}
				}, come)
				if c.later {
					receive(t, "PHP-FPM has the head", begun)
					run.web.send(abort)
				}
				if err := run.result(); !errors.Is(err, ErrHungUp) {
					t.Errorf("got %v, want ErrHungUp", err)
				}
				run.web.response(1)
			})
		})
	}
}
