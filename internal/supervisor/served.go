package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// served is what is served: one generation, and what earlier ones have left to come to its end.
type served struct {
	env    Environment
	log    hclog.Logger
	local  *sessionlock.Manager // the locks of this process, which all generations share
	pauses *pauses
	admin  *operators

	mu  sync.Mutex // guards now against other goroutines; only the one that runs the supervisor writes it
	now generation

	removed sync.WaitGroup  // gates and stores that a reload has removed, and that drain
	life    context.Context // of removed: it ends when the time to drain all is over
	end     context.CancelFunc
}

// apply serves c as a whole or, with an error, not at all: then all is served that was served before.
func (s *served) apply(c *config.Config) error {
	p, err := s.prepare(c)
	if err != nil {
		return err
	}
	s.begin(p)
	s.warnUnused()
	return nil
}

// prepare opens what c needs and is not open yet: all of it or, with an error, nothing. Where a gate accepts
// already, under whatever name, it need not listen again.
func (s *served) prepare(c *config.Config) (*prepared, error) {
	p := &prepared{config: c, gates: make(map[string][]net.Listener)}
	var err error
	if p.store, err = openStore(s.env, c, s.now.store); err != nil {
		return nil, err
	}
	if p.admin, err = s.admin.open(c.Admin); err != nil {
		p.close(s.now.store, s.log)
		return nil, err
	}
	for _, g := range c.Gates {
		if old := s.now.at(g.Listen); old != nil && !slices.ContainsFunc(old.listeners, s.env.IsGone) {
			continue
		}
		if p.gates[g.Name], err = s.env.Listen(g); err != nil {
			p.close(s.now.store, s.log)
			return nil, err
		}
	}
	return p, nil
}

// begin makes what was prepared the generation that is served. Nothing of it can fail. A gate that stays keeps its
// requests and, if it listens where it did, its listener, unless that is gone.
func (s *served) begin(p *prepared) {
	s.replaceStore(p) // first: the old store has users until its gates have the new one
	next, kept := make(map[string]*serving), make(map[Gate]bool)
	for _, g := range p.config.Gates {
		n := s.serve(p, g)
		next[g.Name], kept[n.gate] = n, true // under another name, it may be
	}
	for _, old := range s.now.gates {
		if !kept[old.gate] {
			s.remove(old)
		}
	}
	// Until here, operators and the watchdog see the generation before, some of whose gates drain already.
	s.mu.Lock()
	s.now = generation{config: p.config, since: time.Now(), store: p.store, gates: next}
	s.mu.Unlock()
	s.admin.serve(p.config.Admin, p.admin)
}

// replaceStore has the store of the generation before closed when no request uses it any longer, if it is another one.
func (s *served) replaceStore(p *prepared) {
	if p.store != nil {
		p.store.Relabel(p.config)
	}
	old := s.now.store
	if old == nil || old == p.store {
		return
	}
	old.Retire()
	s.removed.Go(func() { old.close(s.log) })
}

// serve starts a gate, or changes that which listens there already. It accepts on what was opened for it.
func (s *served) serve(p *prepared, g *config.Gate) *serving {
	n := &serving{config: g}
	var of Store
	if g.Lock.Store == config.StoreMemcached {
		n.store, n.memcached = p.store, p.config.Memcached
		n.store.users.Add(1)
		of = n.store.Store
	}
	o := s.env.GateOptions(p.config, g, of)
	if of == nil {
		o.Locks = s.local
	}
	o.Paused = func(until time.Time) { s.pauses.note(g.Name, until) }
	n.watcher = o.Watcher
	listeners := p.gates[g.Name]
	if old := s.now.at(g.Listen); old == nil {
		s.start(n, o)
	} else {
		s.reconfigure(old, n, o)
		if listeners != nil {
			s.log.Warn("the socket was removed or replaced, and is made anew", "gate", g.Name)
		}
	}
	if listeners != nil {
		s.accept(n, listeners)
	}
	return n
}

// start makes a gate.
func (s *served) start(n *serving, o gate.Options) {
	n.gate, n.stopped = s.env.NewGate(o), new(atomic.Pointer[error])
	if left := s.pauses.left(n.config.Name); left > 0 { // before it accepts, so no request slips through
		n.gate.Pause(left)
	}
}

// accept has a gate accept on listeners, in the background.
func (s *served) accept(n *serving, listeners []net.Listener) {
	name := n.config.Name
	n.listeners = listeners
	for _, l := range listeners {
		go func() {
			if err := n.gate.Serve(l); err != nil {
				err = fmt.Errorf("gate %q stopped accepting: %w", name, err)
				s.log.Error("gate ended", "gate", name, "error", err)
				n.stopped.Store(&err)
				_ = l.Close() // a reload may listen there again
			}
		}()
	}
	s.log.Info("listening", "gate", name, "listen", n.config.Listen, "upstream", n.config.Upstream.Addresses)
}

// reconfigure makes n of old, the gate that listens where it should already.
func (s *served) reconfigure(old, n *serving, o gate.Options) {
	n.gate, n.stopped, n.listeners = old.gate, old.stopped, old.listeners
	n.warnMoved(old, s.log)
	idle := n.gate.Configure(o)
	s.removed.Go(func() {
		<-idle
		old.leave()
	})
	if n.config.Listen.Network == "unix" {
		if err := s.env.SetAccess(n.config); err != nil {
			s.log.Error("mode and owner of the socket stay as they were", "gate", n.config.Name, "error", err)
		}
	}
}

// DrainGrace is how long scripts may still run when the time to drain is over and the waiters have been sent away.
const DrainGrace = 2 * time.Second

// removedLimit bounds how long the requests of a gate that a reload has removed may take to end.
const removedLimit = time.Minute

// remove drains a gate that the config no longer has, while the others serve.
func (s *served) remove(g *serving) {
	s.log.Info("gate removed from the config, draining it", "gate", g.config.Name)
	s.removed.Go(func() {
		defer g.leave()
		ctx, cancel := context.WithTimeout(s.life, removedLimit)
		defer cancel()
		_ = g.gate.Shutdown(ctx, DrainGrace)
	})
}

// warnUnused warns of sockets that no gate listens on: connections there wait for an answer that never comes.
func (s *served) warnUnused() {
	for _, name := range s.env.Passed() {
		if s.now.at(netaddr.Addr{Network: "systemd", Address: name}) == nil {
			s.log.Warn("unused socket from systemd: connections to it will hang; give a gate its listen, or disable it",
				"socket", name, "listen", "systemd:"+name)
		}
	}
}

// drain ends all gates, with their requests or when ctx is done, and waits for those that a reload has removed. It
// returns an error for each gate whose requests ran longer than limit, which ctx has.
func (s *served) drain(ctx context.Context, limit time.Duration) error {
	defer context.AfterFunc(ctx, s.end)()
	var all sync.WaitGroup
	all.Go(s.removed.Wait)
	errs := make(chan error, len(s.now.gates))
	for name, g := range s.now.gates {
		all.Go(func() {
			defer g.leave()
			if err := g.gate.Shutdown(ctx, DrainGrace); err != nil {
				errs <- fmt.Errorf("gate %q: requests still running after %v", name, limit+DrainGrace)
			}
		})
	}
	all.Wait()
	close(errs)
	var joined error
	for err := range errs {
		joined = errors.Join(joined, err)
	}
	return joined
}

// close closes the store, after drain.
func (s *served) close() {
	if s.now.store != nil {
		s.now.store.close(s.log)
	}
}

// current returns the generation that is served, to any goroutine.
func (s *served) current() generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// conns is how many conns all gates have.
func (s *served) conns() (n int) {
	for _, g := range s.current().gates {
		n += g.gate.Conns()
	}
	return n
}

// listens reports whether a gate still accepts.
func (s *served) listens() bool {
	for _, g := range s.current().gates {
		if g.gate.Listening() {
			return true
		}
	}
	return false
}

// gates returns the gates by their names.
func (s *served) gates() map[string]Gate {
	all := make(map[string]Gate)
	for name, g := range s.current().gates {
		all[name] = g.gate
	}
	return all
}
