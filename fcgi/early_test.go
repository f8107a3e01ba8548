package fcgi

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRequestsThatComeEarlyAreServedInTheirOrder multiplexes requests on one conn, whose records come while the first
// of them has its head read, its stdin read, or its script running.
func TestRequestsThatComeEarlyAreServedInTheirOrder(t *testing.T) {
	body := strings.Repeat("b", 100_000)
	first := requestOf(1, true, body)
	second, third := requestOf(2, true, "two"), requestOf(7, true, body)
	for _, c := range []struct {
		name string
		in   [][]byte // what comes while the first request is served, piece by piece
	}{
		{"at once", [][]byte{joined(first, second, third)}},
		{"one by one", [][]byte{first, second, third}},
		{"in the head of the first", [][]byte{first[:16], second, third, first[16:]}},
		{"in its stdin, before a record", [][]byte{first[:len(first)-8-34465-8], second, third, first[len(first)-8-34465-8:]}},
		{"cut anywhere", [][]byte{first[:50_000], first[50_000:], second[:9], second[9:30], joined(second[30:], third[:50_000]), third[50_000:]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onAll(t, func(t *testing.T, web, php string) {
				pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
					for {
						r, err := p.request()
						if err != nil {
							return
						}
						time.Sleep(2 * watchDelay) // the conn is read meanwhile
						p.answer(r.id, r.stdin)
					}
				}))
				run := start(t, pool, web, nil, first[:8])
				go func() {
					run.web.send(c.in[0][8:])
					for _, piece := range c.in[1:] {
						time.Sleep(5 * time.Millisecond)
						run.web.send(piece)
					}
				}()
				for i, want := range []string{body, "two", body} {
					id := []uint16{1, 2, 7}[i]
					if got := run.web.response(id); got.stdout != want || len(got.managed) > 0 {
						t.Errorf("request %d: got %.20q and %v, want %.20q", id, got.stdout, got.managed, want)
					}
					if err := run.result(); err != nil {
						t.Fatalf("request %d: %v", id, err)
					}
					if i < 2 {
						run.again(pool, nil)
					}
				}
			})
		})
	}
}

func TestWhatIsKeptOfEarlyRequestsIsBounded(t *testing.T) {
	piece := AppendRecord(nil, TypeStdin, 2, make([]byte, 30_000))
	flood := joined(requestOf(2, true, "")[:24], slices.Concat(slices.Repeat([][]byte{piece}, 100)...))
	longFlood := slices.Concat(flood, slices.Concat(slices.Repeat([][]byte{piece}, 700)...)) // longer than any buffer on the way

	t.Run("while the first request is read", func(t *testing.T) {
		both(t, func(t *testing.T, network string) {
			c, web := newConn(t, network, Limits{})
			begin := joined(AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1), AppendRecord(nil, TypeStdin, 1, []byte("on")))
			go web.send(begin, flood, stdinOf(1, "e"), requestOf(3, true, "three"))
			r, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			stdin, err := readStdin(r)
			if stdin != "one" || err != nil {
				t.Errorf("got %q and %v, want the first request whole", stdin, err)
			}
			if n := len(c.early.records); n > maxEarly {
				t.Errorf("%d bytes are kept, want at most %d", n, maxEarly)
			}
			if got := web.response(2); got.status != StatusOverloaded {
				t.Errorf("the second request ends with status %d, want OVERLOADED", got.status)
			}
			r.finish()
			if r, err = c.Next(); err != nil || r.ID != 3 {
				t.Errorf("got request %+v and %v, want 3", r, err)
			}
		})
	})

	t.Run("while its script runs", func(t *testing.T) {
		onAll(t, func(t *testing.T, web, php string) {
			release := make(chan struct{})
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				if r, err := p.request(); err == nil {
					<-release
					p.answer(r.id, "done")
					p.ended()
				}
			}))
			run := start(t, pool, web, nil, requestOf(1, true, ""))
			_ = run.web.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := run.web.Write(longFlood); err == nil {
				t.Error("all of it was read while the first script runs")
			}
			close(release)
			if got := run.web.response(1); got.stdout != "done" {
				t.Errorf("got %q", got.stdout)
			}
			if err := run.result(); err != nil {
				t.Error(err)
			}
			if n := len(run.conn.early.records); n > maxEarly {
				t.Errorf("%d bytes are kept, want at most %d", n, maxEarly)
			}
		})
	})

	t.Run("and the web server is seen to hang up all the same", func(t *testing.T) {
		onAll(t, func(t *testing.T, web, php string) {
			pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
				_, _ = p.request()
				_, _ = io.Copy(io.Discard, p)
			}))
			run := start(t, pool, web, func(x *Exchange) { x.AbandonAfter = 50 * time.Millisecond }, requestOf(1, true, ""))
			run.web.send(flood[:60_000]) // TCP does not deliver the end of more than its buffers hold
			run.web.Close()
			if err := run.result(); !errors.Is(err, ErrAbandoned) && !errors.Is(err, ErrHungUp) {
				t.Errorf("got %v, want to hear that it has gone", err)
			}
		})
	})
}

// A conn that is shut down serves what has begun on it.
func TestShutdownServesRequestsThatCameEarly(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		web.send(requestOf(1, true, ""), requestOf(2, true, ""))
		var served []uint16
		for {
			r, err := c.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			served = append(served, r.ID)
			c.Shutdown(false)
			if err := r.Respond(Answer{Body: []byte(fmt.Sprint(r.ID))}); err != nil {
				t.Fatal(err)
			}
		}
		if want := []uint16{1, 2}; !slices.Equal(served, want) {
			t.Errorf("requests %d are served, want %d", served, want)
		}
	})
}
