package fcgi

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

func TestRequestIsForwardedAsItCame(t *testing.T) {
	begin := padded(TypeBeginRequest, 7, "\x00\x01\x01\x00\x00\x00\x00\x00", 3)
	params := joined(padded(TypeParams, 7, string(pairsOf("A", "1", "B", strings.Repeat("b", 5000))), 5), padded(TypeParams, 7, string(pairsOf("FPM_GATE_LOCK", "mine")), 0))
	end := padded(TypeParams, 7, "", 4)
	own := AppendRecord(nil, TypeParams, 7, pairsOf("FPM_GATE_LOCK", "held"))
	onAll(t, func(t *testing.T, web, php string) {
		got := make(chan phpRequest, 1)
		addr := startPHP(t, php, func(p *phpConn) {
			r, err := p.request()
			if err != nil {
				return
			}
			got <- r
			p.answer(r.id, "\r\n")
		})
		for name, body := range map[string]string{"no body": "", "a short body": "body", "a long body": strings.Repeat("0123456789", 100_000)} {
			stdin := stdinOf(7, body)
			pool := newPool(t, nil, addr)
			run := start(t, pool, web, nil, begin, params, end, stdin)
			sent := receive(t, "the request", got)
			if err := run.result(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := joined(begin, params, own, end, stdin)
			setRequestIDs(want, 1) // the first of its connection
			if php == "tcp" {
				want[flagsOffset] &^= flagKeepConn
			}
			if !bytes.Equal(sent.records, want) {
				t.Errorf("%s: PHP got %d bytes %.200q, want %d bytes %.200q", name, len(sent.records), sent.records, len(want), want)
			}
			if lock := sent.params.Get("FPM_GATE_LOCK"); string(lock) != "held" {
				t.Errorf("%s: FPM_GATE_LOCK is %q, want ours, which comes last", name, lock)
			}
			run.web.response(7)
		}
	})
}

func TestKeepConnIsThePoolsToSay(t *testing.T) {
	for reuse, want := range map[time.Duration]bool{0: false, time.Second: true} {
		for _, keep := range []bool{false, true} {
			got := make(chan phpRequest, 1)
			addr := startPHP(t, "unix", func(p *phpConn) {
				r, _ := p.request()
				got <- r
				p.answer(r.id, "\r\n")
			})
			pool := newPool(t, func(o *PoolOptions) { o.Reuse = reuse }, addr)
			run := start(t, pool, "unix", nil, requestOf(1, keep, ""))
			if r := receive(t, "the request", got); r.keep != want {
				t.Errorf("reuse %v, keep conn %t: PHP got keep conn %t, want %t", reuse, keep, r.keep, want)
			}
			if err := run.result(); err != nil {
				t.Error(err)
			}
			if run.x.Request.Reusable() != keep {
				t.Errorf("reuse %v, keep conn %t: the web server's conn is reusable: %t", reuse, keep, run.x.Request.Reusable())
			}
		}
	}
}

func TestParamsOfOurOwnFillAsManyRecordsAsTheyNeed(t *testing.T) {
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("FPM_GATE_%d", i), "")
	}
	for name, own := range map[string][]string{
		"none":                     nil,
		"more than a record holds": many,
		"as long as a record":      {"A", "a", "FPM_GATE_LONG", strings.Repeat("x", maxContent-8-13), "B", "b"},
	} {
		got := make(chan phpRequest, 1)
		addr := startPHP(t, "unix", func(p *phpConn) {
			r, err := p.request()
			if err != nil {
				t.Errorf("%s: PHP got %v", name, err)
			}
			got <- r
			p.answer(r.id, "\r\n")
		})
		pool := newPool(t, nil, addr)
		run := start(t, pool, "unix", func(x *Exchange) { x.Params = pairsOf(own...) }, requestOf(1, true, "body", "A", "1"))
		r := receive(t, "the request", got)
		want := append([]string{"A", "1"}, own...)
		if flat := strings.Join(flat(r.params), "\n"); flat != strings.Join(want, "\n") || r.stdin != "body" {
			t.Errorf("%s: PHP got params %.100q and stdin %q", name, flat, r.stdin)
		}
		if err := run.result(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The params are read by others too, as long as the request lasts: to describe the holder of a lock, say.
func TestParamsStayValidWhenTheRequestGrows(t *testing.T) {
	addr := startPHP(t, "unix", echo)
	pool := newPool(t, nil, addr)
	for size := smallBuffer - 400; size < smallBuffer; size += 50 {
		request := requestOf(1, false, "", "A", "precious", "B", "")
		request = requestOf(1, false, "", "A", "precious", "B", strings.Repeat("b", size-len(request)))
		var before, after string
		run := start(t, pool, "unix", func(x *Exchange) {
			x.Params = pairsOf("LONG", strings.Repeat("x", 500))
			x.Header = func(*ResponseHeader) {
				for range 10 { // what others do meanwhile
					b := newBuffer(smallBuffer)
					copy(b.b, bytes.Repeat([]byte("!"), len(b.b)))
				}
				after = string(x.Request.Params.Get("A"))
			}
		}, request)
		before = "precious"
		if err := run.result(); err != nil {
			t.Fatal(err)
		}
		if after != before {
			t.Errorf("a request of %d bytes: got %q, want %q", len(request), after, before)
		}
		run.web.response(1)
	}
}

func TestScriptHasEndedBeforeTheWebServerLearnsIt(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		pool := newPool(t, nil, startPHP(t, php, echo))
		var run *running
		for i := range 20 {
			if request := requestOf(1, true, "body"); i == 0 {
				run = start(t, pool, web, nil, request)
			} else {
				run.next(pool, nil, request)
			}
			if got := run.web.response(1); got.stdout != "X-Echo: 1\r\n\r\nbody" {
				t.Fatalf("got %q", got.stdout)
			}
			if !run.isEnded() {
				t.Fatal("the web server has its end request, and the script is not said to have ended")
			}
			if err := run.result(); err != nil {
				t.Fatal(err)
			}
		}
		want := PoolStats{Open: 1, Idle: 1, Dials: 1, Reuses: 19}
		if php == "tcp" {
			want = PoolStats{Dials: 20}
		}
		if s := pool.Stats(); s != want {
			t.Errorf("got %+v, want %+v", s, want)
		}
	})
}

func TestStreamPassesAsItComes(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		goOn := make(chan struct{})
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			r, _ := p.request()
			p.send(AppendRecord(nil, TypeStdout, r.id, []byte("\r\nfirst")))
			<-goOn
			p.answer(r.id, "second")
		}))
		run := start(t, pool, web, func(x *Exchange) { x.Header = look }, requestOf(1, true, ""))
		if _, content := run.web.record(); string(content) != "\r\nfirst" {
			t.Errorf("got %q before the script's end", content)
		}
		if run.isEnded() {
			t.Error("the script is said to have ended")
		}
		close(goOn)
		if got := run.web.response(1); got.stdout != "second" {
			t.Errorf("got %q at its end", got.stdout)
		}
		if err := run.result(); err != nil {
			t.Error(err)
		}
	})
}

func TestStdinIsRelayedAsItComes(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			r, err := p.head()
			if err != nil {
				return
			}
			for { // answer each part as it comes
				h, content, err := p.take(&r)
				if err != nil || h.ContentLength == 0 {
					break
				}
				p.send(AppendRecord(nil, TypeStdout, r.id, content))
			}
			p.answer(r.id, "end")
		}))
		run := start(t, pool, web, nil, AppendBeginRequest(nil, 1, RoleResponder, true), paramsOf(1))
		for i := range 50 {
			part := fmt.Sprintf("part %d", i)
			run.web.send(AppendRecord(nil, TypeStdin, 1, []byte(part)))
			if _, content := run.web.record(); string(content) != part {
				t.Fatalf("got %q, want %q", content, part)
			}
		}
		run.web.send(stdinOf(1, ""))
		if got := run.web.response(1); got.stdout != "end" {
			t.Errorf("got %q", got.stdout)
		}
		if err := run.result(); err != nil {
			t.Error(err)
		}
		if s := pool.Stats(); (s.Idle == 1) != (php == "unix") || !run.x.Request.Reusable() {
			t.Errorf("got %+v and %t, want both connections to be kept, but for TCP to PHP-FPM", s, run.x.Request.Reusable())
		}
	})
}

func TestMuchBothWaysAtOnce(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB
	onAll(t, func(t *testing.T, web, php string) {
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			r, err := p.head()
			if err != nil {
				return
			}
			for { // echoes while it reads
				h, content, err := p.take(&r)
				r.records = nil
				if err != nil || h.ContentLength == 0 {
					break
				}
				p.send(AppendRecord(nil, TypeStdout, r.id, content))
			}
			p.answer(r.id, "")
		}))
		run := start(t, pool, web, nil)
		go run.web.send(requestOf(1, true, body))
		if got := run.web.response(1); got.stdout != body {
			t.Errorf("got %d bytes, want %d as they were sent", len(got.stdout), len(body))
		}
		if err := run.result(); err != nil {
			t.Error(err)
		}
	})
}

// After the end of stdin nothing is read until the response is whole, as PHP-FPM does it.
func TestWhatComesDuringStdinIsAnsweredAtOnce(t *testing.T) {
	getValues := AppendRecord(nil, TypeGetValues, 0, pairsOf("FCGI_MPXS_CONNS", ""))
	for _, c := range []struct {
		name string
		in   []byte
		want RecordType
	}{
		{"get values", getValues, TypeGetValuesResult},
		{"an unknown management record", padded(111, 0, "x", 1), TypeUnknownType},
	} {
		t.Run(c.name, func(t *testing.T) {
			onAll(t, func(t *testing.T, web, php string) {
				goOn := make(chan struct{})
				pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
					for {
						r, err := p.head()
						if err != nil {
							return
						}
						p.send(AppendRecord(nil, TypeStdout, r.id, []byte("half")))
						<-goOn
						for h := (Header{ContentLength: 1}); err == nil && h.ContentLength > 0; {
							h, _, err = p.take(&r)
						}
						p.answer(r.id, " whole")
					}
				}))
				request := requestOf(1, true, "body")
				run := start(t, pool, web, nil, request[:len(request)-headerLen])
				run.web.record()
				run.web.send(c.in[:9])
				run.web.send(c.in[9:])
				if h, _ := run.web.record(); h.Type != c.want {
					t.Errorf("got a record of type %d, want %d", h.Type, c.want)
				}
				run.web.send(request[len(request)-headerLen:])
				close(goOn)
				if got := run.web.response(1); got.stdout != " whole" {
					t.Errorf("got %q", got.stdout)
				}
				if err := run.result(); err != nil {
					t.Error(err)
				}
				run.next(pool, nil, requestOf(3, true, "body"))
				if got := run.web.response(3); got.stdout != "half whole" {
					t.Errorf("got %q to the next request", got.stdout)
				}
				if err := run.result(); err != nil {
					t.Errorf("the next request: %v", err)
				}
			})
		})
	}
}

// A management record can be as long as any, and begin with one request and end with the next.
func TestRecordThatBeginsDuringARequestMayEndAfterIt(t *testing.T) {
	name := strings.Repeat("n", 60_000)
	getValues := AppendRecord(nil, TypeGetValues, 0, pairsOf("FCGI_MPXS_CONNS", "", name, ""))
	for _, c := range []struct {
		name     string
		slow     bool   // the script runs for long enough to have its web server watched
		with     int    // how much of the record comes with the request
		longHead string // makes the conn's buffer large
	}{
		{"its header, with a fast script", false, 9, ""},
		{"its header, with a slow script", true, 9, ""},
		{"most of it, with a fast script", false, 50_000, ""},
		{"most of it, with a slow script", true, 50_000, ""},
		{"most of it behind a long head, with a fast script", false, 50_000, strings.Repeat("h", 60_000)},
		{"most of it behind a long head, with a slow script", true, 50_000, strings.Repeat("h", 60_000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			both(t, func(t *testing.T, network string) {
				goOn := make(chan struct{}, 2)
				pool := newPool(t, nil, startPHP(t, network, func(p *phpConn) {
					for {
						r, err := p.request()
						if err != nil {
							return
						}
						<-goOn
						p.answer(r.id, "\r\n"+r.stdin)
					}
				}))
				run := start(t, pool, network, nil, requestOf(1, true, "one", "A", "a", "H", c.longHead), getValues[:c.with])
				rest := getValues[c.with:]
				if c.slow { // long enough for the gate to watch the conn
					run.web.send(rest[:1])
					rest = rest[1:]
					time.Sleep(2 * watchDelay)
				}
				goOn <- struct{}{}
				if got := run.web.response(1); got.stdout != "\r\none" {
					t.Fatalf("got %q", got.stdout)
				}
				if err := run.result(); err != nil {
					t.Fatal(err)
				}
				goOn <- struct{}{}
				run.next(pool, nil, rest, requestOf(2, true, "two"))
				got := run.web.response(2)
				if got.stdout != "\r\ntwo" || len(got.managed) != 1 || got.managed[0].Type != TypeGetValuesResult {
					t.Errorf("got %+v to the next request", got)
				}
				if err := run.result(); err != nil {
					t.Errorf("the next request: %v", err)
				}
			})
		})
	}
}

func TestResponseBeforeStdinIsWholeArrives(t *testing.T) {
	onAll(t, func(t *testing.T, web, php string) {
		over := make(chan struct{})
		pool := newPool(t, nil, startPHP(t, php, func(p *phpConn) {
			r, err := p.head()
			if err != nil {
				return
			}
			p.answer(r.id, "Status: 413\r\n\r\ntoo large")
			<-over
		}))
		run := start(t, pool, web, nil)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			run.web.send(requestOf(1, true, strings.Repeat("x", 4<<20)))
		}()
		if got := run.web.response(1); got.stdout != "Status: 413\r\n\r\ntoo large" {
			t.Errorf("got %q", got.stdout)
		}
		err := run.result()
		close(over)
		if err != nil {
			t.Error(err)
		}
		if s := pool.Stats(); s.Idle != 0 || s.Open != 0 {
			t.Errorf("got %+v, want no connection to PHP-FPM to be kept", s)
		}
		if !run.x.Request.Reusable() { // the gate has stopped in the middle of a record
			receive(t, "the body is taken", sent)
			run.web.atEnd()
			return
		}
		run.again(pool, nil) // which passes over the rest of the body
		receive(t, "the body is taken", sent)
		run.web.send(requestOf(2, false, "small"))
		if got := run.web.response(2); got.stdout != "Status: 413\r\n\r\ntoo large" {
			t.Errorf("got %q to the next request", got.stdout)
		}
		if err := run.result(); err != nil {
			t.Errorf("the next request: %v", err)
		}
	})
}

func TestFilterGetsItsData(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		pool := newPool(t, nil, startPHP(t, network, func(p *phpConn) {
			r, err := p.request()
			if err != nil {
				return
			}
			for h := (Header{ContentLength: 1}); h.ContentLength > 0 && err == nil; {
				h, _, err = p.take(&r)
			}
			p.answer(r.id, fmt.Sprintf("%q", r.records[len(r.records)-36:]))
		}))
		file := joined(AppendRecord(nil, TypeData, 1, []byte("the file")), AppendRecord(nil, TypeData, 1, nil))
		run := start(t, pool, network, nil, AppendBeginRequest(nil, 1, RoleFilter, true), paramsOf(1), stdinOf(1, "body"))
		run.web.send(file)
		want := fmt.Sprintf("%q", joined([]byte("body"), AppendRecord(nil, TypeStdin, 1, nil), file))
		if got := run.web.response(1); got.stdout != want {
			t.Errorf("got %s, want %s", got.stdout, want)
		}
		if err := run.result(); err != nil {
			t.Error(err)
		}
		if !run.x.Request.Reusable() {
			t.Error("the conn is not reusable")
		}
	})
}

func TestAuthorizerIsServedWithoutStdin(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		pool := newPool(t, nil, startPHP(t, network, func(p *phpConn) {
			for {
				r, err := p.head()
				if err != nil {
					return
				}
				p.answer(r.id, "Status: 200\r\n\r\n")
			}
		}))
		request := joined(AppendBeginRequest(nil, 1, RoleAuthorizer, true), paramsOf(1, "A", "a"))
		run := start(t, pool, network, nil, request)
		for range 3 {
			if got := run.web.response(1); got.stdout != "Status: 200\r\n\r\n" {
				t.Errorf("got %q", got.stdout)
			}
			if err := run.result(); err != nil {
				t.Error(err)
			}
			run.next(pool, nil, request)
		}
		run.web.response(1)
		if err := run.result(); err != nil {
			t.Error(err)
		}
		if s := pool.Stats(); network == "unix" && s.Dials != 1 {
			t.Errorf("got %+v, want one connection", s)
		}
	})
}

func TestHeaderEditReachesTheWebServer(t *testing.T) {
	pool := newPool(t, nil, startPHP(t, "unix", echo))
	run := start(t, pool, "unix", func(x *Exchange) {
		x.Header = func(h *ResponseHeader) {
			h.Remove("X-Echo")
			h.Add("Server-Timing", "x")
		}
	}, requestOf(1, false, "body"))
	if got := run.web.response(1); got.stdout != "Server-Timing: x\r\n\r\nbody" {
		t.Errorf("got %q", got.stdout)
	}
	if err := run.result(); err != nil {
		t.Error(err)
	}
	run.web.atEnd()
}

func TestUnreachablePHPLeavesTheRequestToBeAnswered(t *testing.T) {
	l := listen(t, "unix")
	l.Close()
	pool := newPool(t, nil, netaddr.Addr{Network: "unix", Address: l.Addr().String()})
	c, web := newConn(t, "unix", Limits{})
	web.send(requestOf(1, true, "body"))
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	err = pool.RoundTrip(r.Context(), &Exchange{Request: r, Ended: func() { ended++ }})
	if !errors.Is(err, ErrUnreachable) || ended != 1 {
		t.Errorf("got %v and %d calls of Ended, want ErrUnreachable and one", err, ended)
	}
	if err := r.Respond(Answer{Header: []byte("Status: 502\r\n"), Body: []byte("no")}); err != nil {
		t.Fatal(err)
	}
	if got := web.response(1); got.stdout != "Status: 502\r\n\r\nno" || !r.Reusable() {
		t.Errorf("got %q, reusable %t", got.stdout, r.Reusable())
	}
	if s := pool.Stats(); s.Open != 0 || s.DialErrors != 1 {
		t.Errorf("got %+v", s)
	}
}
