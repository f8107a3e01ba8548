package gate

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpsession"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// patience is how long a test waits for what must come. Nothing that passes takes so long.
const patience = 30 * time.Second

// stand is a gate under test, between a web server and an application of the test's own.
type stand struct {
	*Gate
	t     testing.TB
	addr  string
	php   *php
	locks *sessionlock.Manager
	log   *logBuffer
}

// newStand starts a gate with options that a test does not have to wait for, which edit may change.
func newStand(t testing.TB, edit func(*Options)) *stand {
	t.Helper()
	s := &stand{t: t, php: newPHP(t), locks: sessionlock.NewManager(sessionlock.NewLocal()), log: new(logBuffer)}
	o := s.options(edit)
	s.Gate = New(o, hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: s.log}))
	l := listen(t)
	s.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx, 0)
		if err := receive(t, "the end of Serve", served); err != nil {
			t.Errorf("serve: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	return s
}

func (s *stand) options(edit func(*Options)) Options {
	o := Options{
		Name: "test", Realm: "test", Locks: s.locks,
		Limits:   fcgi.Limits{MaxParams: 256 << 10, HeadTimeout: patience, IdleTimeout: patience},
		Upstream: fcgi.PoolOptions{Addrs: []netaddr.Addr{s.php.addr}, ConnectTimeout: time.Second, QueueTimeout: patience, Reuse: time.Second, Idle: time.Second},
		Session:  phpsession.Rules{Cookies: []string{"PHPSESSID"}},
		Policy:   Policy{MaxWait: patience, Expiry: time.Minute, MaxWaiters: 64, AbandonAfter: patience, Status: 503, RetryAfter: time.Second},
		SlowWait: time.Hour,
	}
	if edit != nil {
		edit(&o)
	}
	return o
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// receive takes a value that must come.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// await waits until something is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// php is an application whose scripts a test runs itself: each request waits in running until the test takes it.
type php struct {
	t       testing.TB
	addr    netaddr.Addr
	running chan *script
	closing chan struct{}
	early   atomic.Bool // a POST runs before its body is there
}

// script is a request that the application has got, and will answer when the test says so.
type script struct {
	params map[string]string
	names  []string // of the params, in their order
	body   string
	conn   net.Conn
	keep   bool
	early  bool
	id     uint16
	done   chan struct{} // closed by end
}

func newPHP(t testing.TB) *php {
	t.Helper()
	return newPHPOn(t, listen(t))
}

func newPHPOn(t testing.TB, l net.Listener) *php {
	t.Helper()
	addr := netaddr.Addr{Network: l.Addr().Network(), Address: l.Addr().String()}
	p := &php{t: t, addr: addr, running: make(chan *script, 20_000), closing: make(chan struct{})}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { p.serve(nc) })
		}
	})
	t.Cleanup(func() {
		close(p.closing)
		l.Close()
		conns.Wait()
	})
	return p
}

// serve hands the requests of a connection to the test, one behind the other.
func (p *php) serve(nc net.Conn) {
	defer nc.Close()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-p.closing:
			nc.Close()
		case <-stop:
		}
	}()
	for {
		s, err := readScript(nc, p.early.Load())
		if err != nil {
			return
		}
		p.running <- s
		select {
		case <-s.done:
		case <-p.closing:
			return
		}
		if s.early {
			_, _ = io.Copy(io.Discard, nc)
		}
		if !s.keep || s.early {
			return
		}
	}
}

func readScript(nc net.Conn, early bool) (*script, error) {
	s := &script{conn: nc, params: map[string]string{}, done: make(chan struct{})}
	var params []byte
	for {
		h, content, raw, err := readRecord(nc)
		if err != nil {
			return nil, err
		}
		switch h.Type {
		case fcgi.TypeBeginRequest:
			s.id, s.keep = h.RequestID, content[2] != 0
		case fcgi.TypeParams:
			params = append(params, raw...)
			if early && len(content) == 0 {
				if err := s.readParams(params); err != nil || s.params["REQUEST_METHOD"] == "POST" {
					s.early = true
					return s, err
				}
				s.names = nil
			}
		case fcgi.TypeStdin:
			s.body += string(content)
			if len(content) == 0 {
				return s, s.readParams(params)
			}
		}
	}
}

func (s *script) readParams(records []byte) error {
	p, err := fcgi.ParseParams(records)
	for name, value := range p.All() {
		s.params[string(name)] = string(value)
		s.names = append(s.names, string(name))
	}
	return err
}

// send passes a part of the response on.
func (s *script) send(stdout string) {
	_, _ = s.conn.Write(fcgi.AppendStream(nil, fcgi.TypeStdout, s.id, []byte(stdout)))
}

// end ends the script, with the last part of its response.
func (s *script) end(stdout string) {
	b := fcgi.AppendStream(nil, fcgi.TypeStdout, s.id, []byte(stdout))
	_, _ = s.conn.Write(fcgi.AppendEndRequest(b, s.id, 0, fcgi.StatusRequestComplete))
	close(s.done)
}

// die ends the worker in the middle of its work.
func (s *script) die() {
	_ = s.conn.Close()
	close(s.done)
}

// next returns the next request that reaches the application.
func (p *php) next() *script {
	p.t.Helper()
	return receive(p.t, "a request reaches the application", p.running)
}

// none checks that no request waits for the application.
func (p *php) none(t testing.TB) {
	t.Helper()
	select {
	case s := <-p.running:
		t.Errorf("a request has reached the application that should not: %v", s.params)
	default:
	}
}

func readRecord(r io.Reader) (h fcgi.Header, content, raw []byte, err error) {
	raw = make([]byte, 8)
	if _, err = io.ReadFull(r, raw); err != nil {
		return h, nil, nil, err
	}
	h = fcgi.ParseHeader(raw)
	raw = append(raw, make([]byte, h.ContentLength+h.PaddingLength)...)
	_, err = io.ReadFull(r, raw[8:])
	return h, raw[8 : 8+h.ContentLength], raw, err
}

// browser is a conn of a web server, with one request on it.
type browser struct {
	net.Conn
	t    testing.TB
	name string
}

// ask sends a request over a conn of its own. Params are names and values in turn; those that every request has are
// added.
func (s *stand) ask(params ...string) *browser {
	s.t.Helper()
	nc, err := net.Dial("unix", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	b := &browser{nc, s.t, strings.Join(params, " ")}
	b.again(params...)
	return b
}

// again sends another request over the same conn.
func (b *browser) again(params ...string) {
	b.t.Helper()
	if _, err := b.Write(requestOf(params...)); err != nil {
		b.t.Errorf("send %s: %v", b.name, err)
	}
}

func requestOf(params ...string) []byte {
	pairs := []string{"REQUEST_METHOD", "GET", "SCRIPT_NAME", "/index.php", "SCRIPT_FILENAME", "/srv/index.php", "REQUEST_URI", "/page?secret=1"}
	b := fcgi.AppendBeginRequest(nil, 1, fcgi.RoleResponder, true)
	for some := range slices.Chunk(append(pairs, params...), 200) { // a pair must not span two records
		var content []byte
		for pair := range slices.Chunk(some, 2) {
			content = fcgi.AppendPair(content, pair[0], pair[1])
		}
		b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, content)
	}
	b = fcgi.AppendRecord(b, fcgi.TypeParams, 1, nil)
	return fcgi.AppendRecord(b, fcgi.TypeStdin, 1, nil)
}

// session is the param by which a request belongs to a session.
func session(id string) []string { return []string{"HTTP_COOKIE", "PHPSESSID=" + id} }

// response is what a web server gets.
type response struct {
	header, body, stderr string
	err                  error // how it ended, if not by an end request
}

func (b *browser) response() response {
	var r response
	var stdout string
	for {
		h, content, _, err := readRecord(b)
		switch {
		case err != nil:
			r.err = err
		case h.Version != 1:
			r.err = fmt.Errorf("record has version %d", h.Version)
		case h.Type == fcgi.TypeStdout:
			stdout += string(content)
		case h.Type == fcgi.TypeStderr:
			r.stderr += string(content)
		case h.Type == fcgi.TypeEndRequest && binary.BigEndian.Uint32(content) != 0:
			r.err = errors.New("refused")
		}
		if r.err != nil || h.Type == fcgi.TypeEndRequest {
			r.header, r.body, _ = strings.Cut(stdout, "\r\n\r\n")
			return r
		}
	}
}

// gets waits for the response in a goroutine.
func (b *browser) gets() <-chan response {
	got := make(chan response, 1)
	go func() { got <- b.response() }()
	return got
}

// want checks that a request gets a page of that body.
func (b *browser) want(body string) {
	b.t.Helper()
	if got := b.response(); got.err != nil || got.body != body {
		b.t.Errorf("%s: got %+v, want %q", b.name, got, body)
	}
}

// wantStatus checks that a request gets an answer of the gate's own.
func (b *browser) wantStatus(status string) response {
	b.t.Helper()
	got := b.response()
	if got.err != nil || !strings.HasPrefix(got.header, "Status: "+status) {
		b.t.Errorf("%s: got %+v, want status %s", b.name, got, status)
	}
	return got
}

const page = "Content-Type: text/plain\r\n\r\n"

// waiters waits until n requests wait for locks.
func (s *stand) waiters(n int) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d requests wait", n), func() bool {
		waiting := 0
		for _, state := range s.locks.Snapshot() {
			waiting += len(state.Waiters)
		}
		return waiting == n
	})
}

// unlocked waits until all sessions are forgotten.
func (s *stand) unlocked() {
	s.t.Helper()
	await(s.t, "all locks are free", func() bool { return len(s.locks.Snapshot()) == 0 })
}
