package fcgi

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fpm-gate/fpm-gate/internal/netpoll"
)

// ways are what ends a kept conn that idles.
var ways = map[string]struct {
	limits Limits
	end    func(*Conn)
	want   error // of Next, if the web server does not close the conn
}{
	"shut down":              {Limits{}, func(c *Conn) { c.Shutdown(false) }, io.EOF},
	"shut down with waiters": {Limits{}, func(c *Conn) { c.Shutdown(true) }, io.EOF},
	"retired":                {Limits{}, (*Conn).Retire, ErrIdle},
	"idle for too long":      {Limits{IdleTimeout: 20 * time.Millisecond}, func(*Conn) {}, ErrIdle},
}

// eachWay runs a test for each way that ends a conn, on each network. The conn has served a request, of id 3.
func eachWay(t *testing.T, test func(t *testing.T, way string, c *Conn, web *peer)) {
	both(t, func(t *testing.T, network string) {
		for name, way := range ways {
			t.Run(name, func(t *testing.T) {
				c, web := newConn(t, network, way.limits)
				web.send(requestOf(3, true, ""))
				serveAnswer(t, c, "before")
				web.response(3)
				test(t, name, c, web)
			})
		}
	})
}

// answerAll serves requests until Next returns an error, and answers each with its id and its param.
func answerAll(c *Conn) error {
	defer c.Close()
	for {
		r, err := c.Next()
		if err != nil {
			return err
		}
		if err := r.Respond(Answer{Body: r.Params.Get("A")}); err != nil {
			return err
		}
	}
}

func TestRequestThatHasComeBeforeTheEndOfAnIdleConnIsServed(t *testing.T) {
	interleaved := joined(AppendBeginRequest(nil, 3, RoleResponder, true), requestOf(5, true, "", "A", "early"),
		paramsOf(3, "A", "1"), stdinOf(3, ""))
	for name, c := range map[string]struct {
		request []byte
		ids     []uint16
	}{
		"a short one":              {requestOf(3, true, "body", "A", "1"), []uint16{3}},
		"a long one":               {requestOf(3, true, "body", "A", strings.Repeat("a", 20_000)), []uint16{3}},
		"two of them":              {joined(requestOf(3, true, "", "A", "1"), requestOf(5, true, "", "A", "2")), []uint16{3, 5}},
		"two that are multiplexed": {interleaved, []uint16{3, 5}},
	} {
		for _, come := range []int{1, 20, len(c.request)} { // how many bytes have come by then
			t.Run(fmt.Sprintf("%s, %d bytes", name, come), func(t *testing.T) {
				eachWay(t, func(t *testing.T, way string, conn *Conn, web *peer) {
					web.send(c.request[:come])
					ways[way].end(conn)
					done := make(chan error, 1)
					go func() { done <- answerAll(conn) }()
					await(t, "what has come is read", func() bool { return unreadBytes(t, conn, web) == 0 })
					web.send(c.request[come:])
					for _, id := range c.ids {
						if got := web.response(id); len(got.stdout) <= len("\r\n") {
							t.Errorf("request %d got %q", id, got.stdout)
						}
					}
					web.Close()
					if err := receive(t, "the end", done); err != io.EOF {
						t.Errorf("ended with %v, want EOF", err)
					}
				})
			})
		}
	}
}

// asked waits until the web server is asked to close the conn.
func (p *peer) asked() {
	p.t.Helper()
	if h, content := p.record(); h.Type != TypeStderr || h.RequestID != 3 || len(content) > 0 {
		p.t.Fatalf("got a record of type %d for request %d with %q, want an empty one of stderr for 3", h.Type, h.RequestID, content)
	}
}

func TestRequestThatIsOnItsWayWhenAnIdleConnEndsIsServed(t *testing.T) {
	eachWay(t, func(t *testing.T, way string, c *Conn, web *peer) {
		done := make(chan error, 1)
		go func() { done <- answerAll(c) }()
		awaitIdle(t, c)
		ways[way].end(c)
		web.asked()
		web.send(requestOf(3, true, "body", "A", "1"))
		if got := web.response(3); got.stdout != "\r\n1" {
			t.Errorf("got %q", got.stdout)
		}
		web.asked() // again: the first time may have been lost on it
		web.Close()
		if err := receive(t, "the end", done); err != io.EOF {
			t.Errorf("ended with %v, want EOF", err)
		}
	})
}

func TestWebServerThatClosesWhenItIsAskedToEndsTheConn(t *testing.T) {
	eachWay(t, func(t *testing.T, way string, c *Conn, web *peer) {
		done := make(chan error, 1)
		go func() { done <- answerAll(c) }()
		awaitIdle(t, c)
		ways[way].end(c)
		raw, err := web.Conn.(netpoll.Conn).SyscallConn()
		if err == nil {
			err = raw.Read(readable)
		}
		if err != nil {
			t.Fatal(err)
		}
		web.Close() // as nginx does: it leaves unread what it has been sent
		if err := receive(t, "the end", done); err != io.EOF {
			t.Errorf("ended with %v, want EOF", err)
		}
	})
}

// readable reports whether anything has come.
func readable(fd uintptr) bool {
	var b [1]byte
	n, errno := netpoll.ReceiveNow(fd, b[:], unix.MSG_PEEK)
	return n > 0 && errno == 0
}

func TestConnWhoseWebServerDoesNotCloseItEndsAllTheSame(t *testing.T) {
	eachWay(t, func(t *testing.T, way string, c *Conn, web *peer) {
		done := make(chan error, 1)
		go func() { done <- answerAll(c) }()
		awaitIdle(t, c)
		ways[way].end(c)
		web.asked()
		if err := receive(t, "the end", done); err != ways[way].want {
			t.Errorf("ended with %v, want %v", err, ways[way].want)
		}
		web.atEnd()
	})
}

// While nothing is held up, a web server has a long time to close its conn. It ends when something is.
func TestWaitForAWebServerIsShortOnceSomethingIsHeldUp(t *testing.T) {
	for name, hurry := range map[string]func(*Conn){
		"by max_conns":                    (*Conn).Retire,
		"by the end of the time to drain": func(c *Conn) { c.Shutdown(true) },
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, way string, c *Conn, web *peer) {
				done := make(chan error, 1)
				go func() { done <- answerAll(c) }()
				awaitIdle(t, c)
				ways[way].end(c)
				web.asked()
				c.idle.mu.Lock()
				c.idle.askedUntil = time.Now().Add(time.Hour)
				_ = c.nc.SetReadDeadline(c.idle.askedUntil)
				c.idle.mu.Unlock()
				hurry(c)
				if err := receive(t, "the end", done); err != ErrIdle && err != io.EOF {
					t.Errorf("ended with %v, want ErrIdle or EOF", err)
				}
				web.atEnd()
			})
		})
	}
}

// A web server that takes no notice, and always has another request, must not keep the gate from its end.
func TestConnThatIsNeverIdleEndsAfterShutdown(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		c, web := newConn(t, network, Limits{})
		web.send(requestOf(3, true, "", "A", "1"))
		done := make(chan error, 1)
		go func() { done <- answerAll(c) }()
		go func() {
			for {
				if _, err := readResponse(web, 3); err != nil {
					return
				}
				if _, err := web.Write(requestOf(3, true, "", "A", "1")); err != nil {
					return
				}
			}
		}()
		c.Shutdown(false)
		if err := receive(t, "the end", done); err != io.EOF {
			t.Errorf("ended with %v, want EOF", err)
		}
	})
}

// Apache looks whether a kept conn has ended before it sends a request, and a record before the end would hide that.
func TestConnOfApacheIsClosedWithoutAWord(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		for name, way := range ways {
			t.Run(name, func(t *testing.T) {
				c, web := newConn(t, network, way.limits)
				web.send(requestOf(1, true, "", "SERVER_SOFTWARE", "Apache/2.4.71 (Debian)", "A", "1"))
				done := make(chan error, 1)
				go func() { done <- answerAll(c) }()
				web.response(1)
				way.end(c)
				if err := receive(t, "the end", done); err != way.want {
					t.Errorf("ended with %v, want %v", err, way.want)
				}
				web.atEnd()
			})
		}
	})
}
