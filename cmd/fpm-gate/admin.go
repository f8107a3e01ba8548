package main

import (
	"net"
	"os"
	"slices"
	"strings"

	"github.com/fpm-gate/fpm-gate/admin"
	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/gate"
	"github.com/fpm-gate/fpm-gate/internal/supervisor"
)

// newAdmin returns the admin of what s serves. It counts and measures from the start, and begins no history anew when a
// reload changes where it listens.
func newAdmin(log *logs, s *supervisor.Supervisor) *admin.Admin {
	version, _, _ := strings.Cut(versionText(), " ")
	host, _ := os.Hostname()
	return admin.New(admin.Options{Log: log, Version: version, Host: host, Served: func() admin.Served {
		v := served(s.State())
		v.LogLost, v.LogFailing = log.sink.lost.Load(), log.sink.failing.Load()
		return v
	}})
}

// served is what an operator may look at. It is called at each request of an operator, and sees one config even during
// a reload.
func served(s supervisor.State) admin.Served {
	v := admin.Served{
		Locks:    []admin.Locks{{Manager: s.Local}},
		Profiles: s.Config != nil && s.Config.Admin != nil && s.Config.Admin.Pprof,
		Draining: s.Draining, Previous: s.Previous, Reloaded: s.Since, ReloadFailed: s.ReloadFailed,
	}
	var stores []*sharedStore
	for _, g := range s.Gates {
		v.Gates = append(v.Gates, admin.Gate{Name: g.Name, Gate: g.Gate.(*gate.Gate), SocketGone: g.Gone})
		if of, shared := g.Store.(*sharedStore); shared && !slices.Contains(stores, of) {
			stores = append(stores, of)
			v.Locks = append(v.Locks, admin.Locks{Manager: of.locks, Store: of.Store})
		}
	}
	return v
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
