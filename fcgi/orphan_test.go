package fcgi

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// script is a fake script that goes on after its web server has gone.
type script struct {
	started chan struct{} // closed when it has its request
	failed  chan error    // what its writing ended with
	end     chan struct{} // closed to let it end
}

func newScript() *script {
	return &script{make(chan struct{}), make(chan error, 1), make(chan struct{})}
}

// serve sends a part, and more of it until it cannot; then it runs on until it may end. As PHP-FPM it reads nothing
// meanwhile, and ends by saying so and reading what is left.
func (s *script) serve(p *phpConn) {
	r, err := p.request()
	if err != nil {
		return
	}
	p.send(AppendRecord(nil, TypeStdout, r.id, []byte("part")))
	close(s.started)
	for err == nil {
		select {
		case <-s.end:
			err = errors.New("ended before anything failed")
		case <-time.After(time.Millisecond):
			_, err = p.Write(AppendRecord(nil, TypeStdout, r.id, []byte("more")))
		}
	}
	s.failed <- err
	<-s.end
	p.answer(r.id, "")
	_ = p.Conn.(netpoll.Conn).CloseWrite()
	p.ended()
}

func TestScriptWhoseWebServerHasGoneKeepsItsLockUntilItEnds(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		s := newScript()
		pool := newPool(t, nil, startPHP(t, php, s.serve))
		run := start(t, pool, web, nil, requestOf(1, true, "body"))
		receive(t, "the script runs", s.started)
		run.web.Close()
		receive(t, "the script can no longer write", s.failed) // as if the gate had gone
		if php == "unix" && sooner(run.ended, 50*time.Millisecond) {
			t.Error("the script is said to have ended while it runs")
		}
		close(s.end)
		if err := run.result(); !errors.Is(err, ErrHungUp) {
			t.Errorf("got %v, want ErrHungUp", err)
		}
		if !run.isEnded() || !run.x.Request.HungUp() || run.x.Request.Reusable() {
			t.Errorf("ended %t, hung up %t, reusable %t", run.isEnded(), run.x.Request.HungUp(), run.x.Request.Reusable())
		}
		if s := pool.Stats(); s.Open != 0 {
			t.Errorf("got %+v, want no open connection", s)
		}
	})
}

func TestSilentScriptWhoseWebServerHasGoneKeepsItsLockUntilItEnds(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		started, end := make(chan struct{}), make(chan struct{})
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			r, err := p.request()
			if err != nil {
				return
			}
			close(started)
			<-end
			p.answer(r.id, "\r\n")
			_ = p.Conn.(netpoll.Conn).CloseWrite()
			p.ended()
		}))
		run := start(t, pool, web, nil, requestOf(1, true, "body"))
		receive(t, "the script runs", started)
		run.web.Close()
		if sooner(run.ended, 100*time.Millisecond) {
			t.Error("the script is said to have ended while it runs")
		}
		close(end)
		if err := run.result(); !errors.Is(err, ErrHungUp) || !run.isEnded() {
			t.Errorf("got %v and ended %t, want ErrHungUp", err, run.isEnded())
		}
	})
}

func TestWorkerThatDiesAfterTheHangUpHasEnded(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		started, end := make(chan struct{}), make(chan struct{})
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			_, _ = p.head() // the end of stdin stays unread: a reset
			close(started)
			<-end
		}))
		run := start(t, pool, web, nil, requestOf(1, true, ""))
		receive(t, "the script runs", started)
		run.web.Close()
		if sooner(run.ended, 60*time.Millisecond) {
			t.Error("the script is said to have ended while it runs")
		}
		close(end)
		if err := run.result(); !errors.Is(err, ErrHungUp) {
			t.Errorf("got %v, want ErrHungUp", err)
		}
	})
}

func TestScriptThatRunsOnForTooLongIsAbandoned(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		for name, write := range map[string]bool{"a silent one": false, "one that writes on": true} {
			started, over := make(chan struct{}), make(chan struct{})
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				r, err := p.request()
				if err != nil {
					return
				}
				close(started)
				for write && err == nil && !sooner(over, time.Millisecond) {
					_, err = p.Write(AppendRecord(nil, TypeStdout, r.id, []byte("more")))
				}
				<-over
			}))
			fails := write && php == "tcp" // at its next output, and it cannot be seen after that
			run := start(t, pool, web, func(x *Exchange) {
				if !fails {
					x.AbandonAfter = 50 * time.Millisecond
				}
			}, requestOf(1, true, "body"))
			receive(t, "the script runs", started)
			run.web.Close()
			err := run.result()
			close(over)
			if fails {
				if !errors.Is(err, ErrHungUp) || !run.isEnded() {
					t.Errorf("%s: got %v and ended %t, want ErrHungUp", name, err, run.isEnded())
				}
			} else if !errors.Is(err, ErrAbandoned) || !run.isEnded() {
				t.Errorf("%s: got %v and ended %t, want ErrAbandoned", name, err, run.isEnded())
			}
			if s := pool.Stats(); s.Open != 0 {
				t.Errorf("%s: got %+v, want no open connection", name, s)
			}
		}
	})
}

func TestScriptThatRunsOnIsNotWaitedForAfterAnAbort(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		for name, abort := range map[string]func(*running) error{
			"by abort": func(run *running) error { run.x.Abort(errStop); return errStop },
			"by kill":  func(run *running) error { run.conn.Kill(); return ErrKilled },
		} {
			for when, gone := range map[string]bool{"after a hang-up": true, "before": false} {
				s := newScript()
				pool := newPool(t, nil, startPHP(t, php, s.serve))
				run := start(t, pool, web, func(x *Exchange) {
					x.orphan.rhythm.pause = patience // so that its next output is waited for
				}, requestOf(1, true, "body"))
				receive(t, "the script runs", s.started)
				want := ErrTruncated
				if gone {
					want = ErrAbandoned
					run.web.Close()
					receive(t, "the script is cut off", s.failed)
				}
				cause := abort(run)
				if err := run.result(); !errors.Is(err, cause) || !errors.Is(err, want) && gone {
					t.Errorf("%s, %s: got %v, want %v: %v", name, when, err, want, cause)
				}
				if !run.isEnded() {
					t.Errorf("%s, %s: Ended was not called", name, when)
				}
				close(s.end)
				run.web.Close()
			}
		}
	})
}

func TestRequestOnAKilledConnNeverReachesPHP(t *testing.T) {
	pool := newPool(t, nil, startPHP(t, "unix", func(*phpConn) { t.Error("PHP was connected to") }))
	c, web := newConn(t, "unix", Limits{})
	web.send(requestOf(1, true, ""))
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	c.Kill()
	if err := pool.RoundTrip(r.Context(), &Exchange{Request: r}); !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want ErrKilled", err)
	}
}

func TestResponseThatIsOnItsWayWhenTheWebServerGoesIsTheEnd(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		for range 30 {
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				r, err := p.request()
				if err != nil {
					return
				}
				p.answer(r.id, "\r\n"+strings.Repeat("long ", 20_000))
				p.ended()
			}))
			run := start(t, pool, web, nil, requestOf(1, true, ""))
			run.web.Close()
			if err := run.result(); err != nil && !errors.Is(err, ErrHungUp) {
				t.Errorf("got %v, want ErrHungUp or none", err)
			}
			if !run.isEnded() {
				t.Error("Ended was not called")
			}
		}
	})
}

func TestHangUpInTheMiddleOfStdinEndsIt(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		read := make(chan error, 1)
		end := make(chan struct{})
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			_, err := p.request()
			read <- err
			<-end
			p.answer(1, "\r\n")
			p.ended()
		}))
		whole := requestOf(1, true, strings.Repeat("body", 1000))
		run := start(t, pool, web, nil, whole[:len(whole)-100])
		await(t, "what came is read", func() bool { return unreadBytes(t, run.conn, run.web) == 0 })
		run.web.Close()
		if err := receive(t, "the end of stdin", read); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("PHP got %v, want an end of file", err)
		}
		if sooner(run.ended, 30*time.Millisecond) {
			t.Error("the script is said to have ended while it runs")
		}
		close(end)
		if err := run.result(); !errors.Is(err, ErrHungUp) {
			t.Errorf("got %v, want ErrHungUp", err)
		}
	})
}

// The web server reads no more, though it sends the rest of a body whose end PHP-FPM has seen already. The script fails
// at its output all the same.
func TestScriptThatPrintsFailsThoughTheRestOfItsBodyComes(t *testing.T) {
	both(t, func(t *testing.T, php string) {
		gone, cutShort, whole := make(chan struct{}), make(chan struct{}), make(chan struct{})
		failed := make(chan error, 1)
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			r, err := p.head()
			if err != nil {
				return
			}
			output := AppendRecord(nil, TypeStdout, r.id, []byte("more"))
			p.send(output)
			<-gone
			p.send(output) // with which the hang-up is seen
			for err == nil {
				_, _, err = p.take(&r)
			}
			close(cutShort)
			<-whole
			for err = nil; err == nil; time.Sleep(time.Millisecond) {
				_, err = p.Write(output)
			}
			failed <- err
		}))
		records := requestOf(1, true, strings.Repeat("body", 1000))
		part := len(records) - 100
		run := start(t, pool, "unix", func(x *Exchange) { x.AbandonAfter = time.Hour }, records[:part])
		run.web.record()
		if err := run.web.Conn.(netpoll.Conn).CloseRead(); err != nil {
			t.Fatal(err)
		}
		close(gone)
		receive(t, "the end of stdin", cutShort)
		run.web.send(records[part:])
		await(t, "all of stdin is read", run.x.client.whole.Load)
		close(whole)
		if err := receive(t, "the script can no longer write", failed); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing ended with %v, want a broken connection", err)
		}
		if err := run.result(); !errors.Is(err, ErrHungUp) {
			t.Errorf("got %v, want ErrHungUp", err)
		}
	})
}

func TestHalfClosedUnixConnGetsItsResponse(t *testing.T) {
	both(t, func(t *testing.T, php string) {
		for name, cut := range map[string]int{"after the request": 0, "in the middle of its stdin": 100} {
			closed, stdin := make(chan struct{}), make(chan error, 1)
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				_, err := p.request()
				stdin <- err
				<-closed
				time.Sleep(2 * watchDelay) // so that the web server is watched
				p.answer(1, "\r\nanswer")
				p.ended()
			}))
			whole := requestOf(1, true, strings.Repeat("body", 1000))
			run := start(t, pool, "unix", nil, whole[:len(whole)-cut])
			await(t, "what came is read", func() bool { return unreadBytes(t, run.conn, run.web) == 0 })
			if err := run.web.Conn.(netpoll.Conn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			close(closed)
			if got := run.web.response(1); got.stdout != "\r\nanswer" {
				t.Errorf("%s: got %q", name, got.stdout)
			}
			if err := run.result(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := receive(t, "PHP has read stdin", stdin); (err != nil) != (cut > 0) {
				t.Errorf("%s: PHP read stdin and got %v", name, err)
			}
		}
	})
}

func TestAbortRequestEndsAtOnceAndItsScriptWhenItEnds(t *testing.T) {
	abort := AppendRecord(nil, TypeAbortRequest, 1, nil)
	onAll(t, func(t *testing.T, web, php string) {
		for name, inStdin := range map[string]bool{"after stdin": false, "in the middle of stdin": true} {
			started, end := make(chan struct{}), make(chan struct{})
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				if inStdin {
					_, _ = p.head()
				} else {
					_, _ = p.request()
				}
				close(started)
				<-end
				p.answer(1, "\r\n")
				_ = p.Conn.(netpoll.Conn).CloseWrite()
				p.ended()
			}))
			request := requestOf(1, true, "body")
			if inStdin {
				request = request[:len(request)-headerLen]
			}
			run := start(t, pool, web, nil, request)
			receive(t, "the script runs", started)
			run.web.send(abort)
			if got := run.web.response(1); got.stdout != "" || got.status != StatusRequestComplete {
				t.Errorf("%s: got %+v, want an end request", name, got)
			}
			if sooner(run.ended, 20*time.Millisecond) {
				t.Errorf("%s: the script is said to have ended while it runs", name)
			}
			close(end)
			if err := run.result(); !errors.Is(err, ErrHungUp) {
				t.Errorf("%s: got %v, want ErrHungUp", name, err)
			}
		}
	})
}

func TestRequestThatComesWithItsAbortNeverReachesPHP(t *testing.T) {
	pool := newPool(t, nil, startPHP(t, "unix", func(p *phpConn) {
		if _, err := p.request(); err == nil {
			t.Error("PHP got the request")
		}
	}))
	run := start(t, pool, "unix", nil, requestOf(1, true, "body"), AppendRecord(nil, TypeAbortRequest, 1, nil))
	if got := run.web.response(1); got.stdout != "" || got.status != StatusRequestComplete {
		t.Errorf("got %+v, want an end request", got)
	}
	if err := run.result(); !errors.Is(err, ErrHungUp) || !run.isEnded() {
		t.Errorf("got %v and ended %t, want ErrHungUp", err, run.isEnded())
	}
}

func TestRequestThatComesWithBadStdinNeverReachesPHP(t *testing.T) {
	pool := newPool(t, nil, startPHP(t, "unix", func(*phpConn) { t.Error("PHP was connected to") }))
	head := joined(AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1, "A", "a"))
	run := start(t, pool, "unix", nil, head, []byte{9, 5, 0, 1, 0, 0, 0, 0})
	if got := run.web.response(1); got.appStatus == 0 || !strings.Contains(got.stderr, "version 9") {
		t.Errorf("got %+v, want the reason on stderr", got)
	}
	run.web.Close()
	if err := run.result(); !errors.Is(err, ErrMalformed) || !run.isEnded() {
		t.Errorf("got %v and ended %t, want ErrMalformed", err, run.isEnded())
	}
}

func TestRequestWhoseWebServerHasGoneInTheQueueUnseenNeverReachesPHP(t *testing.T) {
	pool := newPool(t, nil, startPHP(t, "unix", func(p *phpConn) {
		if _, err := p.request(); err == nil {
			t.Error("PHP got the request")
		}
	}))
	c, web := newConn(t, "unix", Limits{})
	web.send(requestOf(1, true, ""))
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	r.Context().Done() // it waited, for too short a time to be watched
	web.Close()
	if err := pool.RoundTrip(r.Context(), &Exchange{Request: r}); !errors.Is(err, ErrHungUp) {
		t.Errorf("got %v, want ErrHungUp", err)
	}
}

func TestWebServerThatStopsToSpeakFastCGI(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		for name, bad := range map[string][]byte{
			"a wrong version": {7, 5, 0, 1, 0, 0, 0, 0},
			"params":          paramsOf(1, "A", "a"),
		} {
			started, end := make(chan struct{}), make(chan struct{})
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				if _, err := p.head(); err != nil {
					return
				}
				close(started)
				<-end
				p.answer(1, "\r\n")
				_ = p.Conn.(netpoll.Conn).CloseWrite()
				p.ended()
			}))
			cut := requestOf(1, true, "body")
			run := start(t, pool, web, nil, cut[:len(cut)-headerLen])
			receive(t, "the script runs", started)
			run.web.send(bad)
			got := run.web.response(1)
			if got.appStatus == 0 || !strings.Contains(got.stderr, "malformed FastCGI") {
				t.Errorf("%s: got %+v, want the reason on stderr", name, got)
			}
			if sooner(run.ended, 10*time.Millisecond) {
				t.Errorf("%s: the script is said to have ended while it runs", name)
			}
			close(end)
			if err := run.result(); !errors.Is(err, ErrMalformed) || !run.isEnded() {
				t.Errorf("%s: got %v and ended %t, want ErrMalformed", name, err, run.isEnded())
			}
			run.web.Close()
		}
	})
}

// A request that has waited in the pool's queue, and whose web server has gone meanwhile, never reaches PHP.
func TestHangUpInThePoolsQueueEndsTheRequest(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		started, end := make(chan struct{}), make(chan struct{})
		pool := newPool(t, func(o *PoolOptions) { o.MaxConnections = 1 }, startPHP(t, php, func(p *phpConn) {
			for i := 0; ; i++ {
				r, err := p.request()
				if err != nil {
					return
				}
				if r.stdin == "second" {
					t.Error("the second request reached PHP")
				}
				close(started)
				<-end
				p.answer(r.id, "\r\n")
			}
		}))
		first := start(t, pool, web, nil, requestOf(1, true, "first"))
		receive(t, "the first request runs", started)
		second := start(t, pool, web, nil, requestOf(1, true, "second"))
		await(t, "the second one waits", func() bool { return pool.Stats().Queued == 1 })
		second.web.Close()
		if err := second.result(); !errors.Is(err, ErrHungUp) || !second.isEnded() {
			t.Errorf("got %v and ended %t, want ErrHungUp", err, second.isEnded())
		}
		if s := pool.Stats(); s.Queued != 0 {
			t.Errorf("got %+v, want an empty queue", s)
		}
		close(end)
		first.web.response(1)
		if err := first.result(); err != nil {
			t.Error(err)
		}
	})
}
