package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// adminServer is the side of the server that operators use. It counts and measures from the start, and listens while
// the config says where: a reload may change that, and begins no history anew.
type adminServer struct {
	*admin.Admin
	at     *config.Admin // nil: nowhere
	server *http.Server
}

func newAdminServer(s *server) *adminServer {
	version, _, _ := strings.Cut(versionText(), " ")
	host, _ := os.Hostname()
	return &adminServer{Admin: admin.New(admin.Options{Log: s.log, Version: version, Host: host, Served: s.served})}
}

// open opens the listener that c says. It is nil if there is none to be opened.
func (o *adminServer) open(c *config.Admin) (net.Listener, error) {
	if c == nil || o.at != nil && o.at.Listen == c.Listen {
		return nil, nil
	}
	l, err := listenAdmin(c)
	if err != nil {
		return nil, fmt.Errorf("admin: listen on %s: %w", c.Listen, err)
	}
	return l, nil
}

func listenAdmin(c *config.Admin) (net.Listener, error) {
	if c.Listen.Network == "unix" {
		return listenUnix(asGate(c))
	}
	return net.Listen(c.Listen.Network, c.Listen.Address)
}

// asGate is a gate that listens as the admin does.
func asGate(c *config.Admin) *config.Gate {
	return &config.Gate{Listen: c.Listen, ListenMode: c.ListenMode}
}

// serve serves operators on l, which open has opened for c, instead of where it did so far.
func (o *adminServer) serve(s *server, c *config.Admin, l net.Listener) {
	before := o.at
	o.at = c
	switch {
	case l != nil:
		old := o.server
		o.server = o.Serve(l)
		s.log.Info("admin listening", "listen", c.Listen)
		closeServer(old)
	case c == nil:
		closeServer(o.server)
		o.server = nil
	case c.Listen.Network == "unix" && c.ListenMode != before.ListenMode:
		if err := setAccess(asGate(c), c.Listen.Address); err != nil {
			s.log.Error("mode of the admin's socket stays as it was", "error", err)
		}
	}
}

// stop closes the admin and its connections.
func (o *adminServer) stop() {
	o.Close()
	closeServer(o.server)
}

func closeServer(s *http.Server) {
	if s != nil {
		_ = s.Close()
	}
}

// served is what an operator may look at.
func (s *server) served() admin.Served {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := admin.Served{
		Locks:    []admin.Locks{{Manager: s.local}},
		Profiles: s.admin.at != nil && s.admin.at.Pprof,
		LogLost:  s.log.sink.lost.Load(), LogFailing: s.log.sink.failing.Load(),
		Draining: s.draining, Reloaded: s.applied, ReloadFailed: s.reloadFailed,
	}
	if s.taken != nil {
		select {
		case <-s.taken.Done():
		default:
			v.Previous = true
		}
	}
	var stores []*sharedStore
	for _, name := range slices.Sorted(maps.Keys(s.gates)) {
		g := s.gates[name]
		v.Gates = append(v.Gates, admin.Gate{Name: name, Gate: g.gate})
		if g.store != nil && !slices.Contains(stores, g.store) {
			stores = append(stores, g.store)
			v.Locks = append(v.Locks, admin.Locks{Manager: g.store.locks, Store: g.store.store})
		}
	}
	return v
}

// holder asks who holds the lock of key, for the log of a gate.
func (s *sharedStore) holder(ctx context.Context, key sessionlock.Key) (gate.RemoteHolder, bool) {
	h, held, err := s.store.Holder(ctx, key)
	return gate.RemoteHolder{Gate: h.Gate, Host: h.Host, Token: h.Token}, held && err == nil
}
