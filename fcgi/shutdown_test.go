package fcgi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

func TestShutdownEndsAnIdleConn(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{IdleTimeout: time.Hour, HeadTimeout: time.Hour})
		web.send(requestOf(1, true, ""))
		serveAnswer(t, c, "x")
		web.response(1)
		done := make(chan error, 1)
		go func() { done <- next(c)() }()
		awaitIdle(t, c)
		c.Shutdown(false)
		if err := receive(t, "the end of an idle conn", done); err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
	})
}

// awaitIdle waits until a conn waits for its next request.
func awaitIdle(t testing.TB, c *Conn) {
	t.Helper()
	await(t, "the conn is idle", func() bool { return !c.IdleSince().IsZero() })
}

func TestShutdownLetsAHeadThatHasBegunComeToItsEnd(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for name, requestsBefore := range map[string]int{"on a new conn": 0, "on a kept conn": 1} {
			c, web := newConn(t, network, Limits{IdleTimeout: time.Hour, HeadTimeout: time.Hour})
			for range requestsBefore {
				web.send(requestOf(1, true, ""))
				serveAnswer(t, c, "before")
				web.response(1)
			}
			request := requestOf(1, true, "", "A", "1")
			web.send(request[:20])
			done := make(chan error, 1)
			go func() { done <- next(c)() }()
			await(t, "the start of the head is read", func() bool { return unreadBytes(t, c, web) == 0 })
			c.Shutdown(true)
			web.send(request[20:])
			if err := receive(t, name, done); err != nil {
				t.Errorf("%s: got %v, want the request", name, err)
				continue
			}
			if err := c.req.Respond(Answer{Body: []byte("last")}); err != nil {
				t.Errorf("%s: respond: %v", name, err)
			}
			if got := web.response(1); got.stdout != "\r\nlast" {
				t.Errorf("%s: got %q", name, got.stdout)
			}
			if err := waitFor(t, "the end", next(c)); err != io.EOF {
				t.Errorf("%s: after it: got %v, want EOF", name, err)
			}
		}
	})
}

// unreadBytes is how many bytes that a web server has sent its conn has not looked at.
func unreadBytes(t testing.TB, c *Conn, web *peer) int {
	t.Helper()
	onTheWay := 0
	if !netpoll.IsUnix(c.nc) {
		var err error
		if onTheWay, err = (&upstream{nc: web.Conn.(netpoll.Conn)}).unread(); err != nil {
			t.Fatal(err)
		}
	}
	arrived := 0
	raw, err := c.nc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) { arrived, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err != nil {
		t.Fatal(err)
	}
	return onTheWay + arrived - int(c.in.left.Load())
}

func TestConnThatWasAcceptedBeforeShutdownIsServed(t *testing.T) {
	c, web := newConn(t, "unix", Limits{HeadTimeout: time.Hour})
	c.Shutdown(false)
	web.send(requestOf(1, true, ""))
	serveAnswer(t, c, "x")
	web.response(1)
	if err := waitFor(t, "a second request", next(c)); err != io.EOF {
		t.Errorf("after it: got %v, want EOF", err)
	}
}

func TestShutdownEndsWaitersIfItIsToldTo(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		web.send(requestOf(1, true, ""))
		r, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		done := r.Context().Done()
		c.Shutdown(false)
		select {
		case <-done:
			t.Error("a waiter was ended without need")
		default:
		}
		c.Shutdown(true)
		receive(t, "the end of the wait", done)
		if got := context.Cause(r.Context()); !errors.Is(got, ErrShutdown) {
			t.Errorf("got %v, want ErrShutdown", got)
		}
		if r.HungUp() {
			t.Error("the web server is said to have hung up")
		}
		if err := r.Respond(Answer{Body: []byte("bye")}); err != nil {
			t.Error(err)
		}
		if got := web.response(1); got.stdout != "\r\nbye" {
			t.Errorf("got %q", got.stdout)
		}
	})
}

func TestWaitThatBeginsAfterShutdownEndsAtOnce(t *testing.T) {
	c, web := newConn(t, "unix", Limits{})
	web.send(requestOf(1, true, ""))
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	c.Shutdown(true)
	receive(t, "the end of the wait", r.Context().Done())
	if got := r.Context().Err(); !errors.Is(got, ErrShutdown) {
		t.Errorf("got %v, want ErrShutdown", got)
	}
}

func TestRespondAnswersInPHPsPlace(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		header := []byte("Status: 503\r\nRetry-After: 1\r\n")
		body := strings.Repeat("a long page ", 20_000)
		for id, stderr := range map[uint16]string{1: "", 2: "fpm-gate: because\n"} {
			web.send(requestOf(id, true, "body that no one reads"))
			r, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			responded := make(chan error, 1)
			go func() { responded <- r.Respond(Answer{Header: header, Body: []byte(body), Stderr: stderr}) }()
			got := web.response(id)
			if err := receive(t, "the end of Respond", responded); err != nil {
				t.Error(err)
			}
			if want := string(header) + "\r\n" + body; got.stdout != want || got.stderr != stderr || got.status != StatusRequestComplete {
				t.Errorf("got %.60q, stderr %q and status %d", got.stdout, got.stderr, got.status)
			}
			if !r.Reusable() {
				t.Error("the conn is not reusable")
			}
		}
	})
}

// A conn from which bytes are unread would be reset by a plain close, and its web server would lose the answer.
func TestAnswerBeforeStdinIsWholeArrives(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		request := requestOf(1, true, strings.Repeat("body", 100_000))
		sent := make(chan error, 1)
		go func() {
			_, err := web.Write(request)
			sent <- err
		}()
		if r := serveAnswer(t, c, "too large"); r.Reusable() {
			t.Error("the conn is reusable though stdin has not come whole")
		}
		closed := make(chan error, 1)
		go func() { closed <- c.Close() }()
		if err := receive(t, "the body is taken", sent); err != nil {
			t.Errorf("send the body: %v", err)
		}
		if got := web.response(1); got.stdout != "Status: 200\r\n\r\ntoo large" {
			t.Errorf("got %q", got.stdout)
		}
		web.atEnd()
		web.Close()
		if err := receive(t, "the close", closed); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusalArrivesThoughMuchIsUnread(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{MaxParams: 1000})
		pairs := pairsOf("A", strings.Repeat("a", 60_000))
		go web.send(AppendBeginRequest(nil, 1, RoleResponder, false), bytes.Repeat(AppendRecord(nil, TypeParams, 1, pairs), 3))
		if err := waitFor(t, "the refusal", next(c)); !errors.Is(err, ErrParamsTooLarge) {
			t.Errorf("got %v, want ErrParamsTooLarge", err)
		}
		go c.Close()
		got := web.response(1)
		if got.status != StatusOverloaded || got.appStatus == 0 || !strings.Contains(got.stderr, "params are too large") {
			t.Errorf("got %+v", got)
		}
		web.atEnd()
		web.Close()
	})
}

func TestBrokenConnCannotBeTakenForAWholeResponse(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for name, end := range map[string]func(*Conn){
			"broken and closed": func(c *Conn) { c.Truncate(); c.Close() },
			"killed":            func(c *Conn) { c.Kill(); c.Close() },
		} {
			c, web := newConn(t, network, Limits{})
			web.send(requestOf(1, true, ""))
			if _, err := c.Next(); err != nil {
				t.Fatal(err)
			}
			if err := c.write(AppendRecord(nil, TypeStdout, 1, []byte("half"))); err != nil {
				t.Fatal(err)
			}
			go end(c)
			got, err := readResponse(web, 1)
			switch {
			case network == "tcp" && !errors.Is(err, syscall.ECONNRESET):
				t.Errorf("%s: got %+v and %v, want a reset", name, got, err)
			case network == "unix" && (!errors.Is(err, syscall.ECONNRESET) || got.stdout != "half"):
				t.Errorf("%s: got %+v and %v, want half a response and a reset", name, got, err)
			}
			web.Close()
		}
	})
}

func TestKillEndsAnythingThatTheConnWaitsFor(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for name, use := range map[string]func(c *Conn) error{
			"next":    func(c *Conn) error { return next(c)() },
			"a write": func(c *Conn) error { return c.write(make([]byte, 16<<20)) },
		} {
			c, _ := newConn(t, network, Limits{})
			done := make(chan error, 1)
			go func() { done <- use(c) }()
			time.Sleep(time.Millisecond)
			c.Kill()
			if err := receive(t, name, done); err == nil {
				t.Errorf("%s: got no error", name)
			}
		}
	})
}
