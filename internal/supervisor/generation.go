package supervisor

import (
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionwatch"
)

// generation is what has become of one config. It is never changed: the next generation takes its place as a whole.
type generation struct {
	config *config.Config // nil: nothing is served yet
	since  time.Time
	store  *store // nil: no gate of it needs one
	gates  map[string]*serving
}

// serving is a gate that listens.
type serving struct {
	gate      Gate
	config    *config.Gate
	store     *store               // nil: its locks are in the process
	memcached *config.Memcached    // of the store
	watcher   sessionwatch.Watcher // nil: its sessions are not watched

	listeners []net.Listener // the latest that were opened for it
	// stopped is why the gate has stopped accepting by itself. It is the gate's, whatever its config.
	stopped *atomic.Pointer[error]
}

// at finds the gate that accepts on an address.
func (g *generation) at(a netaddr.Addr) *serving {
	for _, s := range g.gates {
		if s.config.Listen == a && s.stopped.Load() == nil {
			return s
		}
	}
	return nil
}

// leave is called when no request uses the gate's store any longer, nor its watcher.
func (s *serving) leave() {
	if s.store != nil {
		s.store.users.Done()
	}
	if s.watcher != nil {
		s.watcher.Close()
	}
}

// warnMoved warns if a reload keeps the requests of a gate from seeing the locks that are held and waited for.
func (s *serving) warnMoved(old *serving, log hclog.Logger) {
	why := ""
	switch {
	case old.store != nil && s.store != nil && old.memcached.Secret != s.memcached.Secret:
		why = "secret changed"
	case old.config.Realm != s.config.Realm:
		why = "realm changed"
	case !s.meets(old):
		why = "lock store changed"
	default:
		return
	}
	log.Warn("locks already held or waited for stay where they are; new requests do not see them",
		"gate", s.config.Name, "reason", why)
}

// meets reports whether both have their locks in the same place. Another store, as one with another timeout, may be on
// the same servers: then the requests of both wait for each other as those of two hosts do.
func (s *serving) meets(old *serving) bool {
	if s.store == nil || old.store == nil {
		return s.store == old.store
	}
	a, b := s.memcached, old.memcached
	return slices.Equal(a.Servers, b.Servers) && a.Quorum == b.Quorum && a.KeyPrefix == b.KeyPrefix
}

// prepared is a config with all that it takes to serve it and that is not open yet.
type prepared struct {
	config *config.Config
	store  *store                    // the one in use, if that is the same; nil: none is needed
	gates  map[string][]net.Listener // of the gates that listen nowhere yet, by their names
	admin  net.Listener              // nil: the admin stays where it is
}

// close closes what was opened. used is the store that was there before.
func (p *prepared) close(used *store, log hclog.Logger) {
	if p.store != nil && p.store != used {
		p.store.close(log)
	}
	if p.admin != nil {
		_ = p.admin.Close()
	}
	for _, listeners := range p.gates {
		for _, l := range listeners {
			_ = l.Close()
		}
	}
}
