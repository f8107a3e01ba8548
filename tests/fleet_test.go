package tests

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/internal/rig/rigtest"
)

// fleet is some hosts, each with an nginx, a gate and a PHP-FPM of its own. Their sessions are in one store that
// locks none, and the locks of the gates in one memcached, or in three with a quorum.
type fleet struct {
	*rig.Rig
	locks    []*rig.Server
	gates    []*rig.Gate
	sites    []*rig.Site // through the gates
	straight []*rig.Site // past them
	next     int         // of locks, to be harmed
	relays   []*relay    // between a gate and each of its servers of locks, if the fleet has relays
}

type fleetOptions struct {
	handler  string // of the sessions: redis or memcached; redis if empty
	quorum   bool
	lock     string // more of the lock block
	more     string // of the gate block
	relayed  bool   // the first gate reaches memcached by relays
	gateless bool
	lease    time.Duration // 30 s if zero, where nothing is to end by it
	timeout  time.Duration // just under a third of the lease if zero: no machine is busy for so long
}

// shortLease is as short as a lease may be.
const shortLease = 3 * time.Second

func newFleet(t *testing.T, o fleetOptions) *fleet {
	t.Helper()
	f := &fleet{Rig: newRig(t, "nginx", "php-fpm", "memcached", "redis-server", "php-redis", "php-memcached")}
	servers := 1
	if o.quorum {
		servers = 3
	}
	for range servers {
		f.locks = append(f.locks, rigtest.Start(t, f.Memcached, rig.StoreOptions{}))
	}
	ini := f.sessions(t, o.handler)
	for i := range 3 {
		php := rigtest.Start(t, f.PHPFPM, rig.PHPOptions{Workers: 6, INI: ini})
		site, straight := new(rig.Site), &rig.Site{FastCGI: php.Addr}
		sites := []*rig.Site{straight}
		if !o.gateless {
			gate := startGate(t, f.Rig, rig.GateOptions{
				Upstream: php.Addr,
				Settings: fmt.Sprintf("realm = \"shop\"\n  lock {\n    store = \"memcached\"\n    max_wait = \"30s\"\n    %s\n  }\n  %s", o.lock, o.more),
				Config:   f.memcachedBlock(t, o, i == 0 && o.relayed),
			})
			f.gates = append(f.gates, gate)
			site.FastCGI = gate.Addr
			sites = append(sites, site)
			f.sites = append(f.sites, site)
		}
		f.straight = append(f.straight, straight)
		rigtest.Start(t, f.Nginx, rig.NginxOptions{Sites: sites})
	}
	return f
}

// sessions starts a store of sessions that locks none.
func (f *fleet) sessions(t *testing.T, handler string) map[string]string {
	t.Helper()
	if handler == "memcached" {
		ini := rig.MemcachedSessions(rigtest.Start(t, f.Memcached, rig.StoreOptions{Name: "sessions"}))
		ini["memcached.sess_locking"] = "0"
		return ini
	}
	return rig.RedisSessions(rigtest.Start(t, f.Redis, rig.StoreOptions{}), false)
}

func (f *fleet) memcachedBlock(t *testing.T, o fleetOptions, relayed bool) string {
	t.Helper()
	lease := cmp.Or(o.lease, 30*time.Second)
	var servers []string
	for _, s := range f.locks {
		address := s.Addr.String()
		if relayed {
			r := newRelay(t, s.Addr)
			f.relays = append(f.relays, r)
			address = r.address()
		}
		servers = append(servers, strconv.Quote(address))
	}
	return fmt.Sprintf("memcached {\n  servers = [%s]\n  secret = \"hush\"\n  lease = %q\n  quorum = %v\n  timeout = %q\n}\n",
		strings.Join(servers, ", "), lease, o.quorum, cmp.Or(o.timeout, lease*3/10))
}

// nextLocks is a memcached of the locks, another one each time.
func (f *fleet) nextLocks() *rig.Server {
	f.next++
	return f.locks[f.next%len(f.locks)]
}

// relay passes on what a gate and memcached say, and can be told to lose all of it.
type relay struct {
	listener net.Listener
	to       rig.Addr
	deaf     atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, to rig.Addr) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, to: to}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(nc) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		r.hangUp()
		all.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) serve(gate net.Conn) {
	defer gate.Close()
	server, err := net.Dial(r.to.Network, r.to.Address)
	if err != nil {
		return
	}
	defer server.Close()
	r.mu.Lock()
	r.conns = append(r.conns, gate, server)
	r.mu.Unlock()
	back := make(chan struct{})
	go func() {
		defer close(back)
		r.pass(gate, server)
	}()
	r.pass(server, gate)
	<-back
}

// pass copies until one side ends, and ends the other then.
func (r *relay) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if r.deaf.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// heal passes on again. The conns that have lost something are of no use to anybody.
func (r *relay) heal() {
	r.hangUp()
	r.deaf.Store(false)
}

func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, nc := range r.conns {
		nc.Close()
	}
	r.conns = nil
}

// shoppers are clients that ask for one more in the counters of some sessions, each through another site every time,
// one request behind the other.
type shoppers struct {
	sites    []*rig.Site
	clients  int
	sessions int
	script   string // the script and its query, but for the mark
}

// takings are what came of it.
type takings struct {
	served  int           // answers 200
	refused int           // answers 503, 429 and 504: the gate has let no script run, or ended it
	broken  int           // other answers, and none
	made    int           // updates, by the notes of the scripts
	lost    int           // of them, in the counters at the end
	longest time.Duration // until an answer 200
}

// spend lets the shoppers ask for some time, and concurrently does what fault does until its channel is closed, which is then. When
// all is over it counts.
func (s shoppers) spend(t *testing.T, r *rig.Rig, d time.Duration, fault func(over <-chan struct{})) takings {
	t.Helper()
	var sessions, marks []string
	for i := range s.sessions {
		sessions = append(sessions, newSession())
		marks = append(marks, fmt.Sprintf("updates-%d-%d", i, rand.Uint32()))
	}
	over := make(chan struct{})
	end := time.AfterFunc(d, func() { close(over) })
	defer end.Stop()
	var faults sync.WaitGroup
	if fault != nil {
		faults.Go(func() { fault(over) })
	}
	got := s.shop(sessions, marks, time.Now().Add(d))
	faults.Wait()
	for i := range sessions {
		n := s.lastOf(t, sessions[i], marks[i])
		made := len(notes(t, r, marks[i]))
		got.made += made
		got.lost += made - n
	}
	return got
}

func (s shoppers) shop(sessions, marks []string, end time.Time) (got takings) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range s.clients {
		all.Go(func() {
			for time.Now().Before(end) {
				i := rand.IntN(len(sessions))
				start := time.Now()
				r := ask(s.sites[rand.IntN(len(s.sites))], request{path: s.script + "&mark=" + marks[i], session: sessions[i]})
				mu.Lock()
				got.add(r, time.Since(start))
				mu.Unlock()
				if r.failure() != nil {
					time.Sleep(20 * time.Millisecond) // as a visitor would not come back at once
				}
			}
		})
	}
	all.Wait()
	return got
}

func (k *takings) add(r response, took time.Duration) {
	switch {
	case r.failure() == nil:
		k.served++
		k.longest = max(k.longest, took)
	case r.err == nil && (r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests || r.status == http.StatusGatewayTimeout):
		k.refused++
	default:
		k.broken++
	}
}

// lastOf asks for one more, when the servers are well again, and says how many there are with it.
func (s shoppers) lastOf(t *testing.T, session, mark string) (n int) {
	t.Helper()
	eventually(t, "the sessions are served again", func() bool {
		r := ask(s.sites[0], request{path: s.script + "&mark=" + mark, session: session})
		if r.failure() != nil {
			time.Sleep(100 * time.Millisecond)
			return false
		}
		n, _ = strconv.Atoi(r.body)
		return true
	})
	return n
}
