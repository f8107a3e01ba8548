package memcachelock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// These say what comes of a failure of a real memcached, and never how fast: timeout_test.go does, with a clock of
// its own.

func TestAServerThatRefusesFailsAtOnceAndComesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	f.servers[0].Kill()
	s := f.store(t, f.options())
	m := sessionlock.NewManager(s)
	for range 100 {
		wantStoreError(t, m, newKey(t))
	}
	if got := s.Stats().Servers[0]; got.Timeouts != 0 {
		t.Errorf("got %d timeouts of a server that refuses, want none", got.Timeouts)
	}
	restart(t, f.servers[0])
	lockSoon(t, m, newKey(t)).Release()
	if err := s.Health(); err != nil {
		t.Errorf("got health %v, want none", err)
	}
}

// Requests meet a server that hangs: as many wait for it as may be under way at once, and those after them do not.
func TestAServerThatHangsIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	events := new(journal)
	o := f.options()
	o.OnEvent = events.add
	s := f.store(t, o)
	m := sessionlock.NewManager(s)
	first := newKey(t)
	lockSoon(t, m, first).Release()
	eventually(t, "the release is over", func() bool {
		got, _ := talkTo(t, f.servers[0]).get("get", lockName(first))
		return got == ""
	})
	freeze(t, f.servers[0])
	begun := s.Stats().Servers[0]
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { wantStoreError(t, m, newKey(t)) })
	}
	all.Wait()
	const atOnce = 16
	before := s.Stats().Servers[0]
	if got := before.RoundTrips - begun.RoundTrips; got > atOnce {
		t.Errorf("%d of 100 requests have asked a server that hangs, want %d, which may at once", got, atOnce)
	}
	for range 1000 {
		wantStoreError(t, m, newKey(t))
	}
	after := s.Stats().Servers[0]
	if after.RoundTrips != before.RoundTrips {
		t.Errorf("%d questions to a server that is known to hang, want none", after.RoundTrips-before.RoundTrips)
	}
	if after.Up || after.Err == nil || s.Health() == nil {
		t.Errorf("got %+v, health %v, want it down", after, s.Health())
	}
	thaw(t, f.servers[0])
	lockSoon(t, m, newKey(t)).Release()
	events.want(t, memcachelock.ServerDown, memcachelock.ServerUp)
}

func TestAServerThatTalksGarbageIsAnError(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				buf := make([]byte, 4096)
				for {
					if _, err := nc.Read(buf); err != nil {
						return
					}
					if _, err := fmt.Fprintf(nc, "HTTP/1.1 400 Bad Request\r\n\r\n"); err != nil {
						return
					}
				}
			}()
		}
	}()
	s := (&fleet{}).store(t, memcachelock.Options{Servers: []netaddr.Addr{{Network: "tcp", Address: listener.Addr().String()}}})
	m := sessionlock.NewManager(s)
	for range 20 {
		wantStoreError(t, m, newKey(t))
	}
}

// The server is restarted while one gate holds and another waits: the holder's lease is there again before the
// other can take it.
func TestARestartTakesNoLock(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name string
		do   func(*testing.T, *rig.Server)
	}{
		{"restarted", func(t *testing.T, s *rig.Server) { s.Kill(); restart(t, s) }},
		{"flushed", func(t *testing.T, s *rig.Server) { talkTo(t, s).want(talkTo(t, s).ask("flush_all"), "OK") }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 1)
			o := f.options()
			o.Lease = 10 * time.Second // that of the renewals would be too late
			events := new(journal)
			o.OnEvent = events.add
			holder := f.store(t, o)
			other := f.store(t, f.options())
			here, there := sessionlock.NewManager(holder), sessionlock.NewManager(other)
			key := newKey(t)
			l := lockSoon(t, here, key)
			waiter := make(chan *sessionlock.Lock, 1)
			go func() {
				l, err := there.Acquire(context.Background(), key, nil, sessionlock.Policy{MaxWait: time.Minute})
				for errors.Is(err, sessionlock.ErrStore) { // while it is down
					l, err = there.Acquire(context.Background(), key, nil, sessionlock.Policy{MaxWait: time.Minute})
				}
				if err != nil {
					t.Errorf("the waiter: %v", err)
				}
				waiter <- l
			}()
			eventually(t, "the other waits", func() bool { return other.Stats().Waits == 1 })
			for range 3 {
				fault.do(t, f.servers[0])
				select {
				case <-waiter:
					t.Fatal("the waiter has the lock that another holds")
				case <-l.Lost():
					t.Fatalf("the holder lost the lock: %v", l.Err())
				case <-time.After(2 * time.Second): // more than the grace: real time is the subject
				}
			}
			if got, _ := talkTo(t, f.servers[0]).get("get", lockName(key)); got == "" {
				t.Error("the lease was not added again")
			}
			events.want(t, memcachelock.ServerForgot)
			events.wantRestored(t)
			l.Release()
			select {
			case l := <-waiter:
				l.Release()
			case <-time.After(deadline):
				t.Error("the waiter never had its turn")
			}
		})
	}
}

// A gate that was started after the loss does not know that there was one, but that the epoch is young.
func TestANewGateMindsTheGrace(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	old := sessionlock.NewManager(f.store(t, f.options()))
	l := lockSoon(t, old, newKey(t))
	defer l.Release()
	restart(t, f.servers[0])
	s := f.store(t, f.options())
	eventually(t, "the new gate knows the server", func() bool { return s.Stats().Servers[0].Up })
	_, err := sessionlock.NewManager(s).Acquire(context.Background(), l.Key(), nil, sessionlock.Policy{})
	if !errors.Is(err, sessionlock.ErrMaxWait) {
		t.Errorf("got error %v, want the lock held", err)
	}
}

func TestAnEvictedLeaseIsAddedAgainOrLost(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	o := f.options()
	events := new(journal)
	o.OnEvent = events.add
	s := f.store(t, o)
	m := sessionlock.NewManager(s)
	kept, taken := lockSoon(t, m, newKey(t)), lockSoon(t, m, newKey(t))
	f.remove(t, kept.Key(), f.servers[0])
	f.remove(t, taken.Key(), f.servers[0])
	talkTo(t, f.servers[0]).ask("add %s 0 60 8\r\nsomebody", lockName(taken.Key()))
	select {
	case <-taken.Lost():
	case <-time.After(deadline):
		t.Errorf("no event reports that another gate has the lease")
	}
	eventually(t, "the lease is added again", func() bool {
		h, ok, err := s.Holder(context.Background(), kept.Key())
		return err == nil && ok && h.Token == kept.Token()
	})
	if err := kept.Err(); err != nil {
		t.Errorf("got error %v, want it held", err)
	}
	kept.Release()
	events.want(t, memcachelock.LeaseGone, memcachelock.LeaseLost)
	if got := s.Stats(); got.Lost != 2 || got.Servers[0].Regained != 1 {
		t.Errorf("got %+v, want two leases lost, one of which is there again", got)
	}
}

// What a hanging server was asked and answers only later leaves no lease.
func TestALateAddLeavesNoLease(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	o := f.options()
	o.Lease = time.Minute
	m := sessionlock.NewManager(f.store(t, o))
	lockSoon(t, m, newKey(t)).Release()
	freeze(t, f.servers[0])
	var keys []sessionlock.Key
	for range 5 {
		keys = append(keys, newKey(t))
		wantStoreError(t, m, keys[len(keys)-1])
	}
	thaw(t, f.servers[0])
	other := sessionlock.NewManager(f.store(t, o))
	for _, key := range keys {
		lockSoon(t, other, key).Release()
	}
}

// Answers are lost on their way: what was done is asked for before it is believed.
func TestLostAnswersAreAskedFor(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	relay := newRelay(t, f.servers[0])
	o := f.options()
	o.Servers[0] = netaddr.Addr{Network: "tcp", Address: relay.address()}
	s := f.store(t, o)
	m := sessionlock.NewManager(s)
	lockSoon(t, m, newKey(t)).Release()
	other := sessionlock.NewManager(f.store(t, f.options()))
	for _, lost := range []string{"add ", "cas "} {
		key := newKey(t)
		relay.loseAnswerTo(lost + memcachelock.DefaultPrefix)
		l, err := m.Acquire(context.Background(), key, nil, sessionlock.Policy{}) // at once, or never
		if err != nil {
			t.Fatalf("%s: %v", lost, err)
		}
		if got, _ := talkTo(t, f.servers[0]).get("get", lockName(key)); got == "" {
			t.Errorf("%s: the lock is held and nothing is in memcached", lost)
		}
		l.Release()
		lockSoon(t, other, key).Release()
	}
	if got := relay.lost.Load(); got != 2 {
		t.Errorf("%d answers were lost, want 2", got)
	}
}

func TestAQuorumOutlivesOneServer(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name     string
		do, undo func(*testing.T, *rig.Server)
	}{
		{"killed", func(_ *testing.T, s *rig.Server) { s.Kill() }, restart},
		{"frozen", freeze, thaw},
		{"flushed", func(t *testing.T, s *rig.Server) { talkTo(t, s).ask("flush_all") }, func(*testing.T, *rig.Server) {}},
		{"restarted", func(t *testing.T, s *rig.Server) { s.Kill(); restart(t, s) }, func(*testing.T, *rig.Server) {}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 3)
			stores := []*memcachelock.Store{f.store(t, f.quorum()), f.store(t, f.quorum())}
			here, there := sessionlock.NewManager(stores[0]), sessionlock.NewManager(stores[1])
			held := lockSoon(t, here, newKey(t))
			lockSoon(t, there, newKey(t)).Release()
			for i, server := range f.servers {
				fault.do(t, server)
				for range 20 {
					l, err := there.Acquire(context.Background(), newKey(t), nil, sessionlock.Policy{MaxWait: deadline})
					if err != nil {
						t.Fatalf("acquire without %s: %v", server.Name, err)
					}
					l.Release()
				}
				if l, err := there.Acquire(context.Background(), held.Key(), nil, sessionlock.Policy{MaxWait: 200 * time.Millisecond}); err == nil {
					l.Release()
					t.Errorf("without %s: two hold the lock", server.Name)
				}
				fault.undo(t, server)
				// One server at a time is what is promised.
				for _, s := range stores {
					eventually(t, "the server is used again", func() bool {
						stats := s.Stats().Servers[i]
						return stats.Up && !stats.Grace
					})
				}
				eventually(t, "it has the lease again", func() bool {
					value, _ := talkTo(t, server).get("get", lockName(held.Key()))
					return strings.Contains(value, held.Token().String())
				})
			}
			if err := held.Err(); err != nil {
				t.Errorf("the lock is lost: %v", err)
			}
			held.Release()
		})
	}
}

func TestAQuorumWithoutMostOfItsServersFails(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	s := f.store(t, f.quorum())
	m := sessionlock.NewManager(s)
	lockSoon(t, m, newKey(t)).Release()
	f.servers[0].Kill()
	freeze(t, f.servers[1])
	wantStoreError(t, m, newKey(t))
	eventually(t, "the store is not healthy", func() bool { return s.Health() != nil })
	thaw(t, f.servers[1])
	lockSoon(t, m, newKey(t)).Release()
	if err := s.Health(); err != nil {
		t.Errorf("got health %v of two servers of three, want none", err)
	}
}

// relay passes on what a gate and memcached say, and loses an answer when told to.
type relay struct {
	listener net.Listener
	server   *rig.Server
	lost     atomic.Int64

	mu    sync.Mutex
	lose  string
	heard []string // questions
}

func newRelay(t *testing.T, s *rig.Server) *relay {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: listener, server: s}
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
	t.Cleanup(func() { listener.Close() })
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

// loseAnswerTo ends the connection of the next question that begins with prefix, when the server has answered it.
func (r *relay) loseAnswerTo(prefix string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose = prefix
}

// commands are what was asked about name.
func (r *relay) commands(name string) (commands []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, question := range r.heard {
		for line := range strings.Lines(question) {
			if command, rest, _ := strings.Cut(line, " "); strings.HasPrefix(rest, name) {
				commands = append(commands, command)
			}
		}
	}
	return commands
}

// questions is how many round trips the commands about name took.
func (r *relay) questions(name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, question := range r.heard {
		if strings.Contains(question, name) {
			n++
		}
	}
	return n
}

// settle waits until nothing is sent but heartbeats.
func (r *relay) settle(t *testing.T) {
	t.Helper()
	asked := func() (n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, question := range r.heard {
			if !strings.HasPrefix(question, "gets "+memcachelock.DefaultPrefix+"epoch") && !strings.Contains(question, ":fleet") {
				n++
			}
		}
		return n
	}
	for before := -1; before != asked(); time.Sleep(50 * time.Millisecond) {
		before = asked()
	}
}

func (r *relay) loses(question []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, string(question))
	if r.lose == "" || len(question) < len(r.lose) || string(question[:len(r.lose)]) != r.lose {
		return false
	}
	r.lose = ""
	r.lost.Add(1)
	return true
}

// serve knows that both sides speak in turn, and that a question comes in one piece.
func (r *relay) serve(gate net.Conn) {
	defer gate.Close()
	server, err := net.Dial(r.server.Addr.Network, r.server.Addr.Address)
	if err != nil {
		return
	}
	defer server.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := gate.Read(buf)
		if err != nil {
			return
		}
		lose := r.loses(buf[:n])
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
		answer, err := readAnswer(server, strings.Contains(string(buf[:n]), "get"))
		if err != nil || lose {
			return
		}
		if _, err := gate.Write(answer); err != nil {
			return
		}
	}
}

// readAnswer reads what a server says to a question, which may be of two commands, the second a gets.
func readAnswer(server net.Conn, items bool) (answer []byte, err error) {
	buf := make([]byte, 64<<10)
	for n := 0; err == nil; {
		n, err = server.Read(buf)
		answer = append(answer, buf[:n]...)
		if !items || bytes.HasSuffix(answer, []byte("END\r\n")) {
			break
		}
	}
	return answer, err
}

// journal keeps the events.
type journal struct {
	mu   sync.Mutex
	seen map[memcachelock.EventKind]int
}

func (j *journal) add(e memcachelock.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.seen == nil {
		j.seen = make(map[memcachelock.EventKind]int)
	}
	j.seen[e.Kind]++
}

// want waits until each of the events was reported.
func (j *journal) want(t *testing.T, kinds ...memcachelock.EventKind) {
	t.Helper()
	for _, kind := range kinds {
		eventually(t, kind.String()+" is reported", func() bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.seen[kind] > 0
		})
	}
}

// wantRestored waits until a lease was added again. Which of the two events that is depends on how long the restart has
// taken, which a machine with too much to do makes long.
func (j *journal) wantRestored(t *testing.T) {
	t.Helper()
	eventually(t, "a lease was added again", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.seen[memcachelock.LeaseRegained]+j.seen[memcachelock.LeaseGone] > 0
	})
}
