package fcgi

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// pooled serves one whole request, so that its connection is pooled, and hands the next to serve.
func pooled(requests *atomic.Int64, second func(p *phpConn)) func(p *phpConn) {
	return func(p *phpConn) {
		r, err := p.request()
		if err != nil {
			return
		}
		requests.Add(1)
		p.answer(r.id, "\r\nfirst")
		if p.n == 1 {
			second(p)
			return
		}
		p.ended()
	}
}

func TestRequestIsSentAgainOnlyIfNoScriptCanHaveRun(t *testing.T) {
	whole := requestOf(1, true, "body")
	for _, c := range []struct {
		name    string
		request []byte // the second one, on a pooled connection
		second  func(p *phpConn)
		again   bool
	}{
		{"closed while it was idle", whole, func(*phpConn) {}, true},
		{"closed after it has read everything, by a clean end of file", whole, func(p *phpConn) { _, _ = p.request() }, true},
		{"closed with the end of stdin unread, which is a reset", whole, func(p *phpConn) {
			var r phpRequest
			_, _ = p.head()
			_, _, _ = p.take(&r)
		}, false},
		{"closed in the middle of an answer", whole, func(p *phpConn) {
			r, _ := p.request()
			p.send(AppendRecord(nil, TypeStdout, r.id, []byte("half"))[:10])
		}, false},
		{"closed when it has read all that there is of a longer body", whole[:len(whole)-10], func(p *phpConn) {
			_, _ = p.head()
			_, _ = io.ReadFull(p, make([]byte, headerLen+2))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			both(t, func(t *testing.T, web string) {
				var requests atomic.Int64
				closed := make(chan struct{})
				addr := startPHP(t, "unix", func(p *phpConn) {
					pooled(&requests, c.second)(p)
					p.Close()
					if p.n == 1 {
						close(closed)
					}
				})
				pool := newPool(t, nil, addr)
				run := start(t, pool, web, nil, requestOf(1, true, ""))
				run.web.response(1)
				if err := run.result(); err != nil {
					t.Fatal(err)
				}
				if c.name == "closed while it was idle" {
					receive(t, "the pooled connection is closed", closed)
				}
				run.next(pool, nil, c.request)
				if c.again {
					got := run.web.response(1)
					if err := run.result(); err != nil || got.stdout != "\r\nfirst" {
						t.Errorf("got %q and %v, want an answer to the second attempt", got.stdout, err)
					}
				} else if err := run.result(); !errors.Is(err, ErrUpstream) {
					t.Errorf("got %v, want ErrUpstream", err)
				}
				want := int64(1)
				if c.again {
					want = 2
				}
				if got := requests.Load(); got != want {
					t.Errorf("%d requests were answered, want %d", got, want)
				}
			})
		})
	}
}

func TestFreshConnectionThatIsClosedIsNotTriedAgain(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		var requests atomic.Int64
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			_, _ = p.request()
			requests.Add(1)
		}))
		run := start(t, pool, web, nil, requestOf(1, true, "body"))
		if err := run.result(); !errors.Is(err, ErrUpstream) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want ErrUpstream and an unexpected end", err)
		}
		if !run.isEnded() {
			t.Error("Ended was not called")
		}
		if got := requests.Load(); got != 1 {
			t.Errorf("PHP got %d requests, want 1", got)
		}
	})
}

// broken reads a response that must not look whole.
func (run *running) broken(network string) (response, error) {
	got, err := readResponse(run.web, 1)
	run.web.Close()
	switch {
	case err == nil:
		return got, fmt.Errorf("a whole response: %+v", got)
	case !errors.Is(err, syscall.ECONNRESET):
		return got, fmt.Errorf("ended with %w, want a reset", err)
	}
	return got, nil
}

func TestResponseThatIsCutShortNeverLooksWhole(t *testing.T) {
	answer := answerOf(1, block+"body")
	onAll(t, func(t *testing.T, web, php string) {
		var cut atomic.Int64
		addr := startPHP(t, php, func(p *phpConn) {
			if _, err := p.request(); err == nil {
				p.send(answer[:cut.Load()])
			}
		})
		pool := newPool(t, func(o *PoolOptions) { o.Reuse = 0 }, addr)
		for i := range len(answer) {
			cut.Store(int64(i))
			run := start(t, pool, web, func(x *Exchange) { x.Header = look }, requestOf(1, true, ""))
			err := run.waitBroken(web)
			whole := i >= headerLen+len(block)+4
			if whole && !errors.Is(err, ErrTruncated) || !whole && !errors.Is(err, ErrUpstream) {
				t.Errorf("cut at %d: got %v", i, err)
			}
			if !run.isEnded() {
				t.Errorf("cut at %d: Ended was not called", i)
			}
		}
		if s := pool.Stats(); s.Open != 0 {
			t.Errorf("got %+v, want no open connection", s)
		}
	})
}

// waitBroken waits for an exchange that fails. If a part of a response was passed on, it must not look whole.
func (run *running) waitBroken(network string) error {
	run.t.Helper()
	err := run.result()
	if errors.Is(err, ErrTruncated) {
		if _, err := run.broken(network); err != nil {
			run.t.Error(err)
		}
	}
	return err
}

func TestUpstreamThatDoesNotSpeakFastCGI(t *testing.T) {
	half := AppendRecord(nil, TypeStdout, 1, []byte("\r\nhalf"))
	for name, bad := range map[string][]byte{
		"HTTP":                             []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"version 0":                        {0, 6, 0, 1, 0, 0, 0, 0},
		"another request's stdout":         AppendRecord(nil, TypeStdout, 2, []byte("x")),
		"another request's end":            AppendEndRequest(nil, 2, 0, 0),
		"an end request of four bytes":     AppendRecord(nil, TypeEndRequest, 1, make([]byte, 4)),
		"stdin":                            AppendRecord(nil, TypeStdin, 1, []byte("x")),
		"a record of a type that is not":   AppendRecord(nil, 200, 1, nil),
		"a management record in an answer": AppendRecord(nil, TypeGetValuesResult, 0, nil),
	} {
		for _, before := range [][]byte{nil, half} {
			onAll(t, func(t *testing.T, web, php string) {
				sent := make(chan struct{})
				pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
					if _, err := p.request(); err != nil {
						return
					}
					p.send(before)
					if before != nil {
						<-sent
					}
					p.send(bad)
					p.ended()
				}))
				run := start(t, pool, web, nil, requestOf(1, true, "body"))
				want := ErrUpstream
				if before != nil {
					run.web.record()
					want = ErrTruncated
					close(sent)
				}
				if err := run.waitBroken(web); !errors.Is(err, want) || !errors.Is(err, ErrMalformed) {
					t.Errorf("%s: got %v, want %v and ErrMalformed", name, err, want)
				}
				if s := pool.Stats(); s.Open != 0 {
					t.Errorf("%s: got %+v, want no open connection", name, s)
				}
			})
		}
	}
}

func TestConnectionThatSaysTooMuchIsNotPooled(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		pool := newPool(t, nil, startPHP(t, network, func(p *phpConn) {
			r, err := p.request()
			if err != nil {
				return
			}
			p.send(answerOf(r.id, "\r\n"), AppendRecord(nil, TypeStdout, r.id, []byte("more")))
			p.ended()
		}))
		run := start(t, pool, network, nil, requestOf(1, true, ""))
		run.web.response(1)
		if err := run.result(); err != nil {
			t.Error(err)
		}
		if s := pool.Stats(); s.Idle != 0 {
			t.Errorf("got %+v, want no idle connection", s)
		}
	})
}

var errStop = errors.New("enough")

func TestAbortEndsAnExchange(t *testing.T) {
	flood := AppendStream(nil, TypeStdout, 1, make([]byte, 1<<20))
	for _, c := range []struct {
		name string
		want error
		php  func(p *phpConn) // from the whole request on
		// before waits for the moment to abort
		before func(t *testing.T, run *running)
	}{
		{"before the first byte", ErrUpstream, func(p *phpConn) { p.ended() }, func(t *testing.T, run *running) {
			await(t, "the connection is in use", func() bool {
				run.x.link.mu.Lock()
				defer run.x.link.mu.Unlock()
				return run.x.link.up != nil
			})
		}},
		{"before anything", ErrUpstream, func(p *phpConn) { p.ended() }, func(*testing.T, *running) {}},
		{"in the middle of a response", ErrTruncated, func(p *phpConn) {
			p.send(AppendRecord(nil, TypeStdout, 1, []byte("half")))
			p.ended()
		}, func(t *testing.T, run *running) { run.web.record() }},
		{"while the web server reads nothing", ErrTruncated, func(p *phpConn) {
			for {
				if _, err := p.Write(flood); err != nil {
					return
				}
			}
		}, func(t *testing.T, run *running) {
			run.web.record()
			written := func() int {
				run.x.link.mu.Lock()
				defer run.x.link.mu.Unlock()
				n, _ := (&upstream{nc: run.conn.nc}).unread()
				return n
			}
			await(t, "the way to the web server is full", func() bool {
				n := written()
				time.Sleep(5 * time.Millisecond)
				return n > 0 && n == written()
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onAll(t, func(t *testing.T, web, php string) {
				pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
					if _, err := p.request(); err == nil {
						c.php(p)
					}
				}))
				run := start(t, pool, web, nil, requestOf(1, true, "body"))
				c.before(t, run)
				run.x.Abort(errStop)
				run.x.Abort(errors.New("a second cause"))
				if err := run.result(); !errors.Is(err, c.want) || !errors.Is(err, errStop) {
					t.Errorf("got %v, want %v with its cause", err, c.want)
				}
				if !run.isEnded() {
					t.Error("Ended was not called")
				}
				if s := pool.Stats(); s.Open != 0 {
					t.Errorf("got %+v, want no open connection", s)
				}
				if c.want == ErrTruncated {
					if got, err := readResponse(run.web, 1); err == nil {
						t.Errorf("a whole response of %d bytes", len(got.stdout))
					}
				}
				run.web.Close()
			})
		})
	}
}

func TestAbortAfterTheEndChangesNothing(t *testing.T) {
	pool := newPool(t, nil, startPHP(t, "unix", echo))
	run := start(t, pool, "unix", nil, requestOf(1, true, ""))
	run.web.response(1)
	if err := run.result(); err != nil {
		t.Fatal(err)
	}
	run.x.Abort(errStop)
	run.next(pool, nil, requestOf(1, true, "next"))
	if got := run.web.response(1); got.stdout != "X-Echo: 1\r\n\r\nnext" {
		t.Errorf("got %q", got.stdout)
	}
	if err := run.result(); err != nil {
		t.Error(err)
	}
	if s := pool.Stats(); s.Dials != 1 {
		t.Errorf("got %+v, want one connection", s)
	}
}

func TestAbortAtAnyTimeLeavesNothingBehind(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		pool := newPool(t, nil, startPHP(t, php, echo))
		var all sync.WaitGroup
		for i := range 150 {
			all.Go(func() {
				var ended atomic.Int64
				run := start(t, pool, web, func(x *Exchange) { x.Ended = func() { ended.Add(1) } }, requestOf(1, false, strings.Repeat("x", 3000)))
				time.Sleep(time.Duration(i%30) * 50 * time.Microsecond)
				run.x.Abort(errStop)
				err := run.result()
				got, readErr := readResponse(run.web, 1)
				run.web.Close()
				switch {
				case err != nil && !errors.Is(err, errStop):
					t.Errorf("got %v, want the cause", err)
				case err == nil && (readErr != nil || len(got.stdout) != 3013):
					t.Errorf("got no error, and a response of %d bytes and %v", len(got.stdout), readErr)
				case errors.Is(err, ErrTruncated) && readErr == nil:
					t.Error("got ErrTruncated, and a whole response")
				}
				if n := ended.Load(); n != 1 {
					t.Errorf("Ended was called %d times", n)
				}
			})
			if i%10 == 9 {
				all.Wait()
			}
		}
		all.Wait()
		if s := pool.Stats(); s.Open != s.Idle || s.Queued != 0 {
			t.Errorf("got %+v, want only idle connections", s)
		}
	})
}

// A web server that is not reading when its response is cut gets what was sent, maybe half a record, and then an error.
func TestResponseThatIsCutWhileTheWebServerDoesNotReadNeverLooksWhole(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		for name, cut := range map[string]func(*running){
			"aborted": func(run *running) { run.x.Abort(errors.New("enough")) },
			"killed":  func(run *running) { run.conn.Kill() },
			"closed, as by the end of the process": func(run *running) {
				netpoll.ResetOnClose(run.conn.nc) // which the end of a process cannot do; TCP has no other way
				run.conn.nc.Close()
			},
		} {
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				r, err := p.request()
				for record := AppendRecord(nil, TypeStdout, r.id, make([]byte, 30_000)); err == nil; {
					_, err = p.Write(record)
				}
			}))
			run := start(t, pool, web, func(x *Exchange) { x.AbandonAfter = time.Millisecond }, requestOf(1, true, ""))
			run.web.record()
			time.Sleep(20 * time.Millisecond) // until nothing more fits into the socket
			cut(run)
			_, err := readResponse(run.web, 1)
			for err == nil {
				_, err = readResponse(run.web, 1)
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: the response ended with %v, want a reset", name, err)
			}
			run.web.Close()
			if err := run.result(); err == nil {
				t.Errorf("%s: the exchange ended well", name)
			}
		}
	})
}

// TestAScriptThatDiesAfterStderrCanBeAnswered: a web server may send a request again whose kept conn ends before the
// header block of its response, and the script would run twice.
func TestAScriptThatDiesAfterStderrCanBeAnswered(t *testing.T) {
	stderr := func(id uint16) []byte { return AppendRecord(nil, TypeStderr, id, []byte("PHP message: …")) }
	for name, c := range map[string]struct {
		sends func(id uint16) []byte
		want  error
	}{
		"nothing":            {func(uint16) []byte { return nil }, ErrUpstream},
		"stderr":             {stderr, ErrUpstream},
		"much of it":         {func(id uint16) []byte { return []byte(strings.Repeat(string(stderr(id)), 10_000)) }, ErrUpstream},
		"a part of a record": {func(id uint16) []byte { return joined(stderr(id), stderr(id)[:12]) }, ErrUpstream},
		"stderr, a header": {func(id uint16) []byte {
			return joined(stderr(id), AppendRecord(nil, TypeStdout, id, []byte("A: b\r\n\r\n")))
		}, ErrTruncated},
		"stderr, no stdout":   {func(id uint16) []byte { return joined(stderr(id), AppendRecord(nil, TypeStdout, id, nil)) }, ErrTruncated},
		"a body, then stderr": {func(id uint16) []byte { return joined(AppendRecord(nil, TypeStdout, id, []byte("\r\nx")), stderr(id)) }, ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			onAll(t, func(t *testing.T, web, php string) {
				pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
					r, err := p.request()
					if err == nil {
						p.send(c.sends(r.id))
					}
				}))
				run := start(t, pool, web, nil, requestOf(1, true, "body"))
				go func() { _, _ = io.Copy(io.Discard, run.web) }()
				if err := run.result(); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		})
	}
}
