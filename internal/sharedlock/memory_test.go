package sharedlock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/internal/sharedlock"
)

// memory is a server in the memory of a test. What becomes of each request to it, and when, is for the test to say.
type memory struct {
	fates *fates

	mu      sync.Mutex
	frozen  bool
	epoch   int
	version uint64
	items   map[string]stored
}

type stored struct {
	value   string
	version uint64
	until   time.Time // zero: for ever
}

func newMemory(f *fates) *memory { return &memory{fates: f, items: make(map[string]stored)} }

// lose loses all items.
func (m *memory) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	clear(m.items)
}

// age has all items live for d less: for the server, that much time has passed which the gates have not seen.
func (m *memory) age(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, s := range m.items {
		if !s.until.IsZero() {
			s.until = s.until.Add(-d)
			m.items[name] = s
		}
	}
}

// freeze has the server not answer, or answer again.
func (m *memory) freeze(frozen bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = frozen
}

func (m *memory) isFrozen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.frozen
}

// names are the names of all items but the notes of hosts.
func (m *memory) names() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.items {
		if _, ok := m.live(name); ok && !strings.HasSuffix(name, "fleet") {
			names = append(names, name)
		}
	}
	return names
}

// value returns the value of an item, "" if there is none.
func (m *memory) value(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, _ := m.live(name)
	return s.value
}

func (m *memory) live(name string) (stored, bool) {
	s, ok := m.items[name]
	if ok && !s.until.IsZero() && !time.Now().Before(s.until) {
		delete(m.items, name)
		return stored{}, false
	}
	return s, ok
}

func (m *memory) read(names []string) []*kv.Item {
	items := make([]*kv.Item, len(names))
	for i, name := range names {
		if s, ok := m.live(name); ok {
			items[i] = &kv.Item{Name: name, Value: []byte(s.value), Version: s.version}
		}
	}
	return items
}

func (m *memory) write(it *kv.Item) error {
	s, ok := m.live(it.Name)
	switch {
	case it.Version == 0 && ok:
		return kv.ErrExists
	case it.Version != 0 && !ok:
		return kv.ErrMissing
	case it.Version != s.version:
		return kv.ErrChanged
	case it.TTL == kv.Delete:
		delete(m.items, it.Name)
		return nil
	}
	m.version++
	m.items[it.Name] = stored{string(it.Value), m.version, expiry(it.TTL)}
	return nil
}

// expiry is as early as a TTL allows.
func expiry(ttl time.Duration) time.Time { return time.Now().Add(ttl - time.Second) }

// fate is what becomes of a request.
type fate int

const (
	done       fate = iota
	notSent         // no connection
	cutBefore       // the connection ends before it is done
	cutAfter        // and after
	silent          // no answer, and it is never done
	silentLate      // no answer, and it is done a while later
)

// fates decide about requests. Those of a test that is prompt are done when they come.
type fates struct {
	latency time.Duration // of requests that are prompt

	mu     sync.Mutex
	parked []*parked
	prompt bool
}

type parked struct{ fate chan fate }

// decide waits for the test's word about a request that is to be over by then.
func (f *fates) decide(until time.Time) fate {
	f.mu.Lock()
	if f.prompt {
		f.mu.Unlock()
		time.Sleep(f.latency)
		return done
	}
	p := &parked{make(chan fate, 1)}
	f.parked = append(f.parked, p)
	f.mu.Unlock()
	timeout := time.NewTimer(time.Until(until))
	defer timeout.Stop()
	select {
	case fate := <-p.fate:
		return fate
	case <-timeout.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.parked {
		if other == p {
			f.parked = append(f.parked[:i], f.parked[i+1:]...)
			break
		}
	}
	return silent + fate(rand.N(2))
}

// next decides about one of the requests that wait, and reports whether there was one.
func (f *fates) next(rng *rand.Rand, fate fate) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.parked) == 0 {
		return false
	}
	i := rng.IntN(len(f.parked))
	f.parked[i].fate <- fate
	f.parked = append(f.parked[:i], f.parked[i+1:]...)
	return true
}

// waiting is how many requests wait for a word.
func (f *fates) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.parked)
}

// bePrompt has all requests be done from now on, those that wait too, or has them wait again.
func (f *fates) bePrompt(prompt bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prompt = prompt
	for _, p := range f.parked {
		p.fate <- done
	}
	f.parked = nil
}

// client is a gate's side of a memory: a kv.Server.
type client struct {
	*memory
	kv.Figures
	hooks kv.Hooks

	// When so many States have been returned since a take was answered, the server is restarted, and the gate notices that
	// before its next step.
	loseAfter int
	taken     bool

	state   sync.Mutex
	seen    kv.State
	known   int       // epoch
	contact time.Time // when it was last seen
	downAt  time.Time
}

const (
	testGrace   = time.Second
	testTimeout = 250 * time.Millisecond
	lateBy      = 300 * time.Millisecond // that a request may be done after its end
)

func (m *memory) open(h kv.Hooks) kv.Server { return m.client(h) }

func (m *memory) client(h kv.Hooks) *client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &client{memory: m, hooks: h, known: m.epoch}
}

var errCut = errors.New("connection reset")

// request has do done, or not, under the memory's mutex. The epoch is observed with it if that is wanted.
func request[T any](c *client, until time.Time, observe bool, do func() (T, error)) (answer T, err error) {
	if down := c.State().Down; down != nil {
		c.Count(func(s *kv.ServerStats) { s.NotSent++ })
		return answer, down
	}
	asked := time.Now()
	fate := c.fates.decide(until)
	if c.isFrozen() && fate != notSent {
		fate = silent
	}
	switch fate {
	case notSent:
		return answer, fmt.Errorf("dial: %w", kv.ErrNotSent)
	case cutBefore:
		return answer, errCut
	case silent, silentLate:
		if fate == silentLate {
			time.AfterFunc(rand.N(lateBy), func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				_, _ = do()
			})
		}
		c.fail()
		return answer, os.ErrDeadlineExceeded
	}
	c.mu.Lock()
	did, err := do()
	epoch := c.epoch
	c.mu.Unlock()
	if fate == cutAfter {
		return answer, errCut
	}
	if observe && err == nil && !c.observe(epoch, asked) {
		err = kv.ErrEpoch
	}
	return did, err
}

// observe compares the epoch, and begins a grace if it is another one.
func (c *client) observe(epoch int, asked time.Time) bool {
	c.state.Lock()
	if epoch == c.known {
		c.contact = asked
		c.state.Unlock()
		return true
	}
	c.known = epoch
	c.seen.Losses++
	c.seen.GraceEnds = time.Now().Add(testGrace)
	orphan := c.contact
	c.seen.JustLost = true
	time.AfterFunc(testGrace-time.Since(orphan), func() {
		c.state.Lock()
		defer c.state.Unlock()
		c.seen.JustLost = false
	})
	c.state.Unlock()
	c.hooks.Lost()
	return false
}

// fail takes the server for down until its next heartbeat.
func (c *client) fail() {
	c.state.Lock()
	first := c.seen.Down == nil
	if first {
		c.seen.Down = fmt.Errorf("marked down: %w", kv.ErrNotSent)
		c.seen.Silent, c.downAt = time.Now(), time.Now()
	}
	c.state.Unlock()
	if first {
		c.hooks.Down(os.ErrDeadlineExceeded)
	}
}

func (c *client) Watch(ctx context.Context) {
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if c.isFrozen() {
			c.fail()
			continue
		}
		c.state.Lock()
		up := c.seen.Down != nil
		c.seen.Down = nil
		c.state.Unlock()
		asked := time.Now()
		c.mu.Lock()
		items, epoch := c.read(c.hooks.Names), c.epoch
		c.mu.Unlock()
		c.observe(epoch, asked)
		if it := c.hooks.Beat(items); it != nil {
			c.mu.Lock()
			_ = c.write(it)
			c.mu.Unlock()
		}
		if up {
			c.hooks.Up()
		}
		c.hooks.Alive()
	}
}

// State returns what is known of the server.
func (c *client) State() kv.State {
	c.state.Lock()
	defer c.state.Unlock()
	s := c.seen
	s.Away = s.Down != nil && time.Since(c.downAt) >= 2*time.Second
	if c.taken && c.loseAfter > 0 {
		if c.loseAfter--; c.loseAfter == 0 {
			c.state.Unlock()
			c.lose()
			time.Sleep(150 * time.Millisecond) // until a heartbeat
			synctest.Wait()
			c.state.Lock()
		}
	}
	return s
}

// soon is when a request is over that has no time of its own.
func soon() time.Time { return time.Now().Add(testTimeout) }

func (c *client) Take(until time.Time, it *kv.Item, names ...string) ([]*kv.Item, error) {
	items, err := request(c, until, true, func() ([]*kv.Item, error) {
		err := c.write(it)
		return c.read(names), err
	})
	if err == nil {
		c.state.Lock()
		c.taken = true
		c.state.Unlock()
	}
	return items, err
}

func (c *client) Check(until time.Time, names ...string) ([]*kv.Item, error) {
	return request(c, until, true, func() ([]*kv.Item, error) { return c.read(names), nil })
}

func (c *client) Read(_ kv.Lane, names ...string) ([]*kv.Item, error) {
	return request(c, soon(), false, func() ([]*kv.Item, error) { return c.read(names), nil })
}

func (c *client) Write(it *kv.Item) error {
	_, err := request(c, soon(), false, func() (any, error) { return nil, c.write(it) })
	return err
}

func (c *client) Touch(name string, ttl time.Duration) (*kv.Item, error) {
	return request(c, soon(), false, func() (*kv.Item, error) {
		if !c.touch(name, ttl) {
			return nil, kv.ErrMissing
		}
		it := c.read([]string{name})[0]
		it.Version = 0
		return it, nil
	})
}

func (m *memory) touch(name string, ttl time.Duration) bool {
	s, ok := m.live(name)
	if ok {
		s.until = expiry(ttl)
		m.items[name] = s
	}
	return ok
}

func (c *client) Poll(lists [][]string, touch []string, ttl time.Duration) ([][]*kv.Item, error) {
	return request(c, soon(), true, func() (found [][]*kv.Item, err error) {
		for _, names := range lists {
			found = append(found, c.read(names))
		}
		for _, name := range touch {
			c.touch(name, ttl)
		}
		return found, nil
	})
}

func (c *client) WriteAll(items []*kv.Item) error {
	_, err := request(c, soon(), false, func() (any, error) {
		for _, it := range items {
			_ = c.write(it)
		}
		return nil, nil
	})
	return err
}

func (c *client) Name() string          { return "memory" }
func (c *client) Stats() kv.ServerStats { return c.Counted() }
func (c *client) Close()                {}

var _ kv.Server = (*client)(nil)

const testLease = 6 * time.Second

// newStore makes a store on the given servers.
func newStore(gate int, servers ...*memory) *sharedlock.Store {
	o := sharedlock.Options{
		Timeout: testTimeout, Lease: testLease, Quorum: len(servers) > 1, MaxPollRate: 10_000,
		Gate: "www", Host: fmt.Sprint("host-", gate),
	}
	var open []kv.Open
	for _, m := range servers {
		open = append(open, m.open)
	}
	return sharedlock.New(o, open...)
}

func closeStore(t *testing.T, s *sharedlock.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
