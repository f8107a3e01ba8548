package memcachelock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// reports keeps what a store reports of other hosts.
type reports struct {
	mu      sync.Mutex
	differs []string
	agrees  int
}

func (r *reports) add(e memcachelock.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.Kind {
	case memcachelock.FleetDiffers:
		r.differs = append(r.differs, e.Err.Error())
	case memcachelock.FleetAgrees:
		r.agrees++
	}
}

func (r *reports) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.differs...)
}

// Hosts that differ in anything they have to agree about find it out, all of them, and each says it once for each of
// the servers; hosts that agree, or have other gates, say nothing.
func TestHostsThatDisagreeAreFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*memcachelock.Options)
		says   string // "": nothing
	}{
		"nothing differs":   {func(*memcachelock.Options) {}, ""},
		"a gate of its own": {func(o *memcachelock.Options) { o.Realms = map[string]string{"admin": "admin"} }, ""},
		"the order of servers": {func(o *memcachelock.Options) {
			o.Servers = []netaddr.Addr{o.Servers[1], o.Servers[0], o.Servers[2]}
		}, "place in the order of servers"},
		"the number of servers": {func(o *memcachelock.Options) { o.Servers = o.Servers[:2]; o.Quorum = false }, "number of servers: "},
		"the quorum":            {func(o *memcachelock.Options) { o.Quorum = false }, "quorum: "},
		"the lease":             {func(o *memcachelock.Options) { o.Lease = 20 * time.Second }, "lease in seconds: "},
		"the secret":            {func(o *memcachelock.Options) { o.Secret = []byte("other") }, "secret, by its hash: "},
		"no secret":             {func(o *memcachelock.Options) { o.Secret = nil }, "secret, by its hash: "},
		"a realm":               {func(o *memcachelock.Options) { o.Realms = map[string]string{"www": "shop 2"} }, `realm of gate "www": `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				said := [2]*reports{new(reports), new(reports)}
				w := newWorld(t, 3, 2, func(gate int, o *memcachelock.Options) {
					o.Secret, o.Realms, o.OnEvent = []byte("hush"), map[string]string{"www": "shop"}, said[gate].add
					if gate == 1 {
						c.change(o)
					}
				})
				defer w.shut()
				time.Sleep(4 * time.Second)
				for i, r := range said {
					got := r.all()
					if c.says == "" {
						if len(got) > 0 {
							t.Errorf("host %d says %q, want nothing", i, got)
						}
						continue
					}
					other := fmt.Sprintf("host-%d", 1-i)
					if len(got) == 0 || !strings.Contains(got[0], c.says) || !strings.Contains(got[0], other) {
						t.Errorf("host %d says %q, want %q and %s", i, got, c.says, other)
					}
					if strings.Contains(strings.Join(got, ""), "hush") {
						t.Errorf("the report shows the secret: %q", got)
					}
				}
				before := len(said[0].all()) + len(said[1].all())
				time.Sleep(time.Minute)
				if got := len(said[0].all()) + len(said[1].all()); got != before {
					t.Errorf("%d reports a minute later, want the %d of before", got, before)
				}
				if n := w.gates[0].store.Stats().Servers[0].Disagree; (n > 0) != (c.says != "") {
					t.Errorf("the figure is %d", n)
				}
			})
		})
	}
}

// A probe finds a host that disagrees at whatever moment of the seconds it comes, by which memcached lets its item
// live, and of the other host's pause between two notes.
func TestAProbeFindsAHostThatDisagrees(t *testing.T) {
	t.Parallel()
	for offset := time.Duration(0); offset < 2500*time.Millisecond; offset += 50 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			var o memcachelock.Options
			w := newWorld(t, 1, 1, func(_ int, own *memcachelock.Options) {
				o = *own
				own.Secret = []byte("hush")
			})
			defer w.shut()
			time.Sleep(5*time.Second + offset)
			start := time.Now()
			reports, err := memcachelock.Probe(context.Background(), o)
			if err != nil || reports[0].Err != nil {
				t.Fatalf("got errors %v and %v", err, reports[0].Err)
			}
			if got := reports[0].Warnings; len(got) != 1 || !strings.Contains(got[0], "in another way: secret") {
				t.Errorf("after %v: got warnings %q, want one of the secret", offset, got)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("after %v: it took %v", offset, took)
			}
		})
	}
}

// A host takes another config, and its store retires: for a while both are there, which is nothing to report.
func TestAReloadIsNoDisagreement(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		said := new(reports)
		w := newWorld(t, 1, 2, func(gate int, o *memcachelock.Options) {
			o.OnEvent = said.add
			if gate == 1 {
				o.Lease = 20 * time.Second // the host is going to have it
				time.Sleep(5 * time.Second)
			}
		})
		defer w.shut()
		time.Sleep(3 * time.Second)
		if got := said.all(); len(got) == 0 {
			t.Error("a store that is not retired is not reported")
		}
		w.gates[0].store.Retire()
		time.Sleep(15 * time.Second)
		said.mu.Lock()
		defer said.mu.Unlock()
		if n := w.gates[1].store.Stats().Servers[0].Disagree; n != 0 || said.agrees == 0 {
			t.Errorf("%d disagree after the old store has retired, and it was said %d times that all agree", n, said.agrees)
		}
	})
}

// Two memcached are behind one address: half of the locks would be on either. It is down, so that on_store_failure
// decides, and not a grace without end.
func TestSeveralServersAtOneAddressAreNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turn atomic.Int64
		var downs atomic.Int64
		w := newWorld(t, 2, 1, func(_ int, o *memcachelock.Options) {
			o.Servers, o.Quorum = o.Servers[:1], false
			dial := o.Dial
			o.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dial(ctx, network, fmt.Sprint(turn.Add(1)%2))
			}
			o.OnEvent = func(e memcachelock.Event) {
				if e.Kind == memcachelock.ServerDown {
					downs.Add(1)
				}
			}
		})
		defer w.shut()
		w.servers[1].set(func() { w.servers[1].items[memcachelock.DefaultPrefix+"epoch"] = fakeItem{value: "1000 another"} })
		time.Sleep(5 * time.Second)
		m := w.gates[0].locks
		local, refused := 0, 0
		for range 20 {
			l, err := m.Acquire(context.Background(), newKey(t), nil, sessionlock.Policy{MaxWait: time.Minute, HoldLocally: true})
			if err != nil {
				t.Fatal(err)
			}
			if l.Local() {
				local++
			}
			defer l.Release()
			if _, err := m.Acquire(context.Background(), newKey(t), nil, sessionlock.Policy{MaxWait: time.Minute}); errors.Is(err, sessionlock.ErrStore) {
				refused++
			}
		}
		if local != 20 || refused != 20 {
			t.Errorf("%d of 20 held locally, %d of 20 refused, want all", local, refused)
		}
		if err := w.gates[0].store.Health(); err == nil || !strings.Contains(err.Error(), "several memcached") {
			t.Errorf("got health %v, want it to name the cause", err)
		}
		if n := downs.Load(); n != 1 {
			t.Errorf("it was said %d times that the server is down, want once", n)
		}
	})
}

// speaker is a server of a test that says what it will.
func speaker(t *testing.T, serve func(net.Conn)) memcachelock.Options {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				serve(nc)
			}()
		}
	}()
	return memcachelock.Options{Servers: []netaddr.Addr{{Network: "tcp", Address: listener.Addr().String()}}}
}

const someEpoch = "VALUE fpm-gate:epoch 0 6 1\r\n1000 x\r\nEND\r\n"

// What a hostile server says is bounded in size and in time: it drips, it names a size that nothing has, it never ends.
func TestAHostileServerIsBounded(t *testing.T) {
	t.Parallel()
	for name, hostile := range map[string]func(net.Conn){
		"drips": func(nc net.Conn) {
			for range 1000 {
				if _, err := io.WriteString(nc, "VALUE fpm-gate:epoch 0 6 1\r\n1000 x\r\n"); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
		"names a size of 4 GB":   func(nc net.Conn) { _, _ = io.WriteString(nc, "VALUE fpm-gate:epoch 0 4294967295 1\r\n") },
		"sends a line of no end": func(nc net.Conn) { _, _ = nc.Write(bytes.Repeat([]byte("x"), 1<<20)) },
		"sends items of no end": func(nc net.Conn) {
			for {
				if _, err := io.WriteString(nc, "VALUE fpm-gate:epoch 0 1 1\r\nx\r\n"); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var conns atomic.Int64
			o := speaker(t, func(nc net.Conn) {
				buf := make([]byte, 4096)
				for n := 0; ; n++ {
					if _, err := nc.Read(buf); err != nil {
						return
					}
					if conns.Add(1) > 2 { // it is met as a server that is well
						hostile(nc)
						return
					}
					if _, err := io.WriteString(nc, someEpoch); err != nil {
						return
					}
				}
			})
			s := (&fleet{}).store(t, o)
			m := sessionlock.NewManager(s)
			for range 5 {
				if l, err := m.Acquire(context.Background(), newKey(t), nil, sessionlock.Policy{MaxWait: 500 * time.Millisecond}); err == nil {
					t.Errorf("got the lock %v", l.Key())
				}
			}
		})
	}
}

// A server that closes each connection after its first answer is met with a pause, and said to be down once.
func TestAServerThatKeepsNoConnectionIsDown(t *testing.T) {
	t.Parallel()
	var conns atomic.Int64
	o := speaker(t, func(nc net.Conn) {
		conns.Add(1)
		if _, err := nc.Read(make([]byte, 4096)); err == nil {
			_, _ = io.WriteString(nc, someEpoch)
		}
	})
	var downs atomic.Int64
	o.OnEvent = func(e memcachelock.Event) {
		if e.Kind == memcachelock.ServerDown {
			downs.Add(1)
		}
	}
	s := (&fleet{}).store(t, o)
	time.Sleep(2 * time.Second) // real time is the subject
	if n := conns.Load(); n > 50 {
		t.Errorf("%d connections in two seconds, want a pause between them", n)
	}
	if got := s.Stats().Servers[0]; got.Up || downs.Load() != 1 {
		t.Errorf("it is up: %v, and was said to be down %d times, want once", got.Up, downs.Load())
	}
	wantStoreError(t, sessionlock.NewManager(s), newKey(t))
}

// A write whose answer is not waited for any longer must not be sent again by the kernel when the network is back: its
// connection is reset, not closed.
func TestAWriteInDoubtIsNotSentLater(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 100)
	o := speaker(t, func(nc net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			if bytes.HasPrefix(buf[:n], []byte("add "+memcachelock.DefaultPrefix)) && bytes.Contains(buf[:n], []byte("held")) {
				_, err := nc.Read(buf)
				ends <- err
				return
			}
			if _, err := io.WriteString(nc, someEpoch); err != nil {
				return
			}
		}
	})
	s := (&fleet{}).store(t, o)
	eventually(t, "the server is up", func() bool { return s.Stats().Servers[0].Up })
	_, _ = sessionlock.NewManager(s).Acquire(context.Background(), newKey(t), nil, sessionlock.Policy{MaxWait: time.Second})
	select {
	case err := <-ends:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the connection ended with %v, want a reset", err)
		}
	case <-time.After(deadline):
		t.Error("the connection never ended")
	}
}
