package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// patience is how long a test waits for what must come. Nothing that passes takes so long.
const patience = 30 * time.Second

// stand is an admin under test, with a gate that gets no requests and locks that the test holds itself.
type stand struct {
	*Admin
	t     testing.TB
	locks *sessionlock.Manager
	far   *farStore
	log   lockedBuffer

	mu     sync.Mutex
	served Served
}

func newStand(t testing.TB) *stand {
	t.Helper()
	s := &stand{t: t, locks: sessionlock.NewManager(sessionlock.NewLocal()), far: &farStore{}}
	log := hclog.New(&hclog.LoggerOptions{Output: &s.log})
	g := gate.New(gate.Options{
		Name: "www", Locks: s.locks, Routes: []gate.Route{{Name: "api"}},
		Upstream: fcgi.PoolOptions{Addrs: []netaddr.Addr{{Network: "unix", Address: filepath.Join(t.TempDir(), "absent")}}},
	}, log)
	t.Cleanup(func() { _ = g.Shutdown(context.Background(), 0) })
	s.served = Served{Profiles: true, Gates: []Gate{{Name: "www", Gate: g}}, Locks: []Locks{{s.locks, s.far}}, Reloaded: time.Now()}
	s.Admin = New(Options{Log: log, Version: "v1.2.3", Host: "web-1", Served: func() Served {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.served
	}})
	t.Cleanup(s.Close)
	return s
}

// change changes what is served.
func (s *stand) change(edit func(*Served)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.served)
}

// farStore is a store in which another host holds every lock that this process does not.
type farStore struct {
	mu      sync.Mutex
	holder  sessionlock.RemoteHolder
	failure error
	lookups int
	during  func() // is called with each lookup; nil: nothing happens
}

func (f *farStore) Stats() sharedlock.Stats {
	return sharedlock.Stats{Leases: 1, Servers: []sharedlock.ServerStats{{Server: "10.0.0.1:11211", Up: true}}}
}

func (f *farStore) Health() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failure
}

func (f *farStore) Holder(context.Context, sessionlock.Key) (sessionlock.RemoteHolder, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups++
	if f.during != nil {
		f.during()
	}
	return f.holder, f.holder.Host != "", f.failure
}

// request is one that holds a lock or waits for it.
type request sessionlock.Description

func (r request) Describe() sessionlock.Description { return sessionlock.Description(r) }

func requestFor(path string) request {
	return request{Realm: "shop", Gate: "www", Route: "api", Method: "POST", Path: path, Script: "/srv" + path}
}

var keys = []sessionlock.Key{{0xab, 0xcd, 1}, {0xab, 0xcd, 2}, {0x11, 0x22, 3}}

func (s *stand) hold(key sessionlock.Key, path string) *sessionlock.Lock {
	s.t.Helper()
	l, err := s.locks.Acquire(context.Background(), key, requestFor(path), sessionlock.Policy{Expiry: time.Hour})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(l.Release)
	return l
}

// wait has a request wait, and returns when it does.
func (s *stand) wait(key sessionlock.Key, path string) (got <-chan error) {
	s.t.Helper()
	done := make(chan error, 1)
	before := s.waiting()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	go func() {
		l, err := s.locks.Acquire(ctx, key, requestFor(path), sessionlock.Policy{MaxWait: time.Hour})
		if err == nil {
			l.Release()
		}
		done <- err
	}()
	await(s.t, "it waits", func() bool { return s.waiting() == before+1 })
	return done
}

func (s *stand) waiting() (n int) {
	for _, state := range s.locks.Snapshot() {
		n += len(state.Waiters)
	}
	return n
}

// await waits until something is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// client sends requests to an admin.
type client struct {
	*http.Client
	t    testing.TB
	base string
}

// listen makes the admin listen, and returns a client of it.
func (s *stand) listen(network string) *client {
	s.t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(s.t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		s.t.Fatal(err)
	}
	server := s.Serve(l)
	s.t.Cleanup(func() { _ = server.Close() })
	base := "http://gate"
	if network == "tcp" {
		base = "http://" + l.Addr().String()
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
	}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &client{&http.Client{Transport: transport, Timeout: patience}, s.t, base}
}

// ask sends a request and returns the response. header alternates names and values; Host is the request's.
func (c *client) ask(method, path, body string, header ...string) (int, string) {
	c.t.Helper()
	r, err := http.NewRequest(method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	resp, err := c.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// get returns a page in JSON.
func get[Page any](c *client, path string) (page Page) {
	c.t.Helper()
	status, text := c.ask("GET", path, "")
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		c.t.Fatalf("GET %s: got status %d, %q and error %v, want JSON", path, status, text, err)
	}
	return page
}

// lockedBuffer is a log that tests read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
