package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/internal/landlock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// world is an Environment in memory. It knows what is open, and can have any step of a reload fail.
type world struct {
	t *testing.T

	mu        sync.Mutex
	text      string              // of the config that Load reads
	loads     int                 // of configs
	loading   chan struct{}       // Load waits until it is closed; nil: it does not
	judging   chan struct{}       // Judge waits until it is closed; nil: it does not
	judged    int                 // configs, to the end
	broken    map[string]error    // what a method by that name returns
	failAt    int                 // the number of the step that fails; zero: none
	steps     []string            // what was to be opened, in order
	open      map[string]int      // listeners by their addresses, and "admin" for what serves operators
	listeners []*listener         // in the order in which they were made
	passed    []string            // names of sockets from systemd
	changed   []string            // what was changed of what is open
	gates     []*fakeGate         // in the order in which they were made
	stores    []*fakeStore        // in the order in which they were opened
	rules     map[string][]string // folders that a config needs, by the name of its first gate
	traces    bool                // Traces
	version   int                 // of Landlock
	states    []string            // that systemd got
	reports   []error             // that an operator got
	levels    []string            // of the log
	exits     int
	lines     strings.Builder // of the log
}

func newWorld(t *testing.T) *world {
	return &world{t: t, open: make(map[string]int), broken: make(map[string]error), version: 5}
}

// step opens something, unless it is to fail.
func (w *world) step(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steps = append(w.steps, what)
	if len(w.steps) == w.failAt {
		return fmt.Errorf("cannot open %s", what)
	}
	w.open[what]++
	return nil
}

// drop closes something.
func (w *world) drop(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[what]--; w.open[what] == 0 {
		delete(w.open, what)
	}
}

// isOpen returns what is open, in order; several of one name with their number.
func (w *world) isOpen() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(w.open)) {
		if n := w.open[name]; n != 1 {
			name = fmt.Sprint(n, " ", name)
		}
		all = append(all, name)
	}
	return strings.Join(all, ", ")
}

// failing has a method return an error.
func (w *world) failing(method string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken[method] = err
}

func (w *world) failure(method string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken[method]
}

// Write is the log's.
func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines.Write(line)
}

func (w *world) log() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: w, Level: hclog.Trace, DisableTime: true})
}

// mustLog fails the test unless the log has each text, one after the other.
func (w *world) mustLog(texts ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := w.lines.String()
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			w.t.Errorf("there is no %q, or too early, in the log\n%s", text, w.lines.String())
			return
		}
		rest = after
	}
}

// mustNotLog fails the test if the log has a text.
func (w *world) mustNotLog(text string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(w.lines.String(), text) {
		w.t.Errorf("there is %q in the log\n%s", text, w.lines.String())
	}
}

func (w *world) Load() (*config.Config, error) {
	w.mu.Lock()
	w.loads++
	wait, text, err := w.loading, w.text, w.broken["Load"]
	w.mu.Unlock()
	if wait != nil {
		<-wait
	}
	if err != nil {
		return nil, err
	}
	return config.Parse([]byte(text), "test.hcl")
}

func (w *world) Judge(*config.Config) error {
	w.mu.Lock()
	wait := w.judging
	w.mu.Unlock()
	if wait != nil {
		<-wait
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judged++
	return w.broken["Judge"]
}

func (w *world) Report(err error) { w.reports = append(w.reports, err) }

func (w *world) ConfigureLog(c config.Log) { w.levels = append(w.levels, c.Level) }

// Listen opens two sockets where systemd has them, else one.
func (w *world) Listen(g *config.Gate) (all []net.Listener, err error) {
	n := 1
	if g.Listen.Network == "systemd" {
		n = 2
	}
	if err := w.step(g.Listen.String()); err != nil {
		return nil, err
	}
	for i := range n {
		if i > 0 {
			w.mu.Lock()
			w.open[g.Listen.String()]++
			w.mu.Unlock()
		}
		all = append(all, newListener(w, g.Listen.String()))
	}
	return all, nil
}

func (w *world) SetAccess(g *config.Gate) error { return w.change("access of " + g.Listen.String()) }

func (w *world) SetAdminAccess(c *config.Admin) error {
	return w.change("access of " + c.Listen.String())
}

func (w *world) change(what string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, what)
	return w.broken["SetAccess"]
}

func (w *world) IsGone(l net.Listener) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return l.(*listener).gone
}

// lose has the sockets of an address removed.
func (w *world) lose(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.listeners {
		if l.address == address {
			l.gone = true
		}
	}
}

func (w *world) Passed() []string { return w.passed }

func (w *world) OpenStore(c *config.Config, old Store) (Store, error) {
	if !slices.ContainsFunc(c.Gates, func(g *config.Gate) bool { return g.Lock.Store == config.StoreMemcached }) {
		return nil, nil
	}
	name := fmt.Sprint("store ", c.Memcached.Servers, c.Memcached.Secret)
	if before, is := old.(*fakeStore); is && reflect.DeepEqual(before.config, c.Memcached) {
		return old, nil
	}
	if err := w.step(name); err != nil {
		return nil, err
	}
	s := &fakeStore{w: w, name: name, config: c.Memcached, locks: sessionlock.NewManager(sessionlock.NewLocal())}
	w.stores = append(w.stores, s)
	return s, nil
}

func (w *world) GateOptions(_ *config.Config, g *config.Gate, s Store) gate.Options {
	o := gate.Options{Name: g.Name, MaxConns: g.MaxConns}
	if g.Session.SavePath != "" {
		o.Watcher = &fakeWatcher{w: w}
		w.mu.Lock()
		w.open["watcher"]++
		w.mu.Unlock()
	}
	if shared, is := s.(*fakeStore); is {
		o.Locks, o.SharedLocks = shared.locks, true
	}
	return o
}

func (w *world) NewGate(o gate.Options) Gate {
	g := &fakeGate{w: w, listeners: make(map[net.Listener]bool), conns: 1}
	g.setUp(o)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates = append(w.gates, g)
	return g
}

func (w *world) ListenAdmin(c *config.Admin) (net.Listener, error) {
	if err := w.step(c.Listen.String()); err != nil {
		return nil, err
	}
	return newListener(w, c.Listen.String()), nil
}

func (w *world) ServeAdmin(l net.Listener) io.Closer { return l }

func (w *world) CloseAdmin() { _ = w.change("streams") }

func (w *world) LandlockVersion() (int, error) { return w.version, w.failure("LandlockVersion") }

func (w *world) Traces() bool { return w.traces }

func (w *world) Rules(c *config.Config) (r landlock.Rules) {
	for _, folder := range w.rules[c.Gates[0].Name] {
		r = append(r, landlock.Rule{Path: folder, Access: landlock.ReadFiles})
	}
	return r
}

func (w *world) Confine(landlock.Rules) error { return w.failure("Confine") }

func (w *world) Notify(state string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = append(w.states, state)
	return w.broken["Notify"]
}

func (w *world) notified() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.states)
}

func (w *world) Exit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exits++
}

func (w *world) hasExited() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exits > 0
}

// listener is one on which nothing comes.
type listener struct {
	net.Listener // nil
	w            *world
	address      string
	gone         bool // guarded by the mutex of w
	failed       chan error
	closed       chan struct{}
	once         sync.Once
}

func newListener(w *world, address string) *listener {
	l := &listener{w: w, address: address, failed: make(chan error, 1), closed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listeners = append(w.listeners, l)
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.w.drop(l.address)
	})
	return nil
}

type fakeWatcher struct {
	sessionwatch.Watcher // nil
	w                    *world
	closed               bool
}

func (f *fakeWatcher) Close() {
	if f.closed {
		f.w.t.Error("a watcher was closed twice")
	}
	f.closed = true
	f.w.drop("watcher")
}

// fakeStore is closed once, and not while a request uses it.
type fakeStore struct {
	config  *config.Memcached
	w       *world
	name    string
	locks   *sessionlock.Manager
	users   []string // gates
	retired bool
}

func (s *fakeStore) Relabel(c *config.Config) {
	s.users = nil
	for _, g := range c.Gates {
		s.users = append(s.users, g.Name)
	}
}

func (s *fakeStore) Retire() { s.retired = true }

func (s *fakeStore) Close() error {
	s.w.mu.Lock()
	gates := slices.Clone(s.w.gates)
	s.w.mu.Unlock()
	for _, g := range gates {
		if g.uses(s.locks) {
			s.w.t.Errorf("%s was closed while a request uses it", s.name)
		}
	}
	s.w.drop(s.name)
	return errors.New("closed")
}

// fakeGate is a gate whose requests the test begins and ends.
type fakeGate struct {
	w     *world
	slow  time.Duration // that Shutdown takes to close the listeners
	stuck chan struct{} // Shutdown does not return until it is closed; nil: it does

	mu        sync.Mutex
	setups    []*fakeSetup
	listeners map[net.Listener]bool
	conns     int
	draining  bool
	paused    time.Duration
	requests  sync.WaitGroup
}

// fakeSetup is what requests that began with the same options have in common.
type fakeSetup struct {
	gate.Options
	running  map[*fakeRequest]bool
	replaced bool
	idle     chan struct{}
}

type fakeRequest struct {
	gate  *fakeGate
	setup *fakeSetup
	ended bool
}

func (g *fakeGate) setUp(o gate.Options) *fakeSetup {
	s := &fakeSetup{Options: o, running: make(map[*fakeRequest]bool), idle: make(chan struct{})}
	g.setups = append(g.setups, s)
	return s
}

func (g *fakeGate) last() *fakeSetup {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.setups[len(g.setups)-1]
}

// begin begins a request.
func (g *fakeGate) begin() *fakeRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		g.w.t.Error("a request comes to a gate that drains")
	}
	r := &fakeRequest{gate: g, setup: g.setups[len(g.setups)-1]}
	r.setup.running[r] = true
	g.requests.Add(1)
	return r
}

// end ends a request, if it has not been broken off.
func (r *fakeRequest) end() {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	delete(r.setup.running, r)
	r.setup.rest()
	r.gate.requests.Done()
}

func (s *fakeSetup) rest() {
	if s.replaced && len(s.running) == 0 {
		close(s.idle)
	}
}

// uses reports whether a request has its lock from locks.
func (g *fakeGate) uses(locks *sessionlock.Manager) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.setups, func(s *fakeSetup) bool { return s.Locks == locks && len(s.running) > 0 })
}

func (g *fakeGate) Serve(l net.Listener) error {
	g.mu.Lock()
	g.listeners[l] = true
	g.mu.Unlock()
	_, err := l.Accept()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.listeners, l)
	if g.draining {
		return nil
	}
	return err
}

// fail has the gate stop accepting by itself.
func (g *fakeGate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.listeners {
		l.(*listener).failed <- err
	}
}

func (g *fakeGate) Configure(o gate.Options) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.setups[len(g.setups)-1]
	g.setUp(o)
	before.replaced = true
	before.rest()
	return before.idle
}

func (g *fakeGate) Shutdown(ctx context.Context, grace time.Duration) error {
	time.Sleep(g.slow)
	g.mu.Lock()
	g.draining = true
	for l := range g.listeners {
		_ = l.Close()
	}
	g.mu.Unlock()
	if g.stuck != nil {
		<-g.stuck
	}
	done := make(chan struct{})
	go func() {
		g.requests.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	case <-time.After(grace):
	}
	for _, s := range g.setups {
		for r := range maps.Clone(s.running) {
			r.end()
		}
	}
	<-done
	return context.Cause(ctx)
}

func (g *fakeGate) Conns() int { return g.conns }

func (g *fakeGate) Listening() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.listeners) > 0 && !g.draining
}

// Pause notes the pause as a gate does.
func (g *fakeGate) Pause(limit time.Duration) {
	g.mu.Lock()
	g.paused = limit
	g.mu.Unlock()
	g.last().Paused(time.Now().Add(limit))
}

func (g *fakeGate) Resume() bool {
	g.mu.Lock()
	was := g.paused > 0
	g.paused = 0
	g.mu.Unlock()
	if was {
		g.last().Paused(time.Time{})
	}
	return was
}

func (g *fakeGate) pausedFor() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}
