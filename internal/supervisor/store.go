package supervisor

import (
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
)

// store is a Store and what uses it. A config with other servers gets a new one; the old one is closed after the last
// request that started with it.
type store struct {
	Store
	users sync.WaitGroup // one per gate, as long as a request of the gate may use the store
}

// openStore returns the store of c: old if it is the same, nil if no gate of c needs one.
func openStore(b Builder, c *config.Config, old *store) (*store, error) {
	var before Store
	if old != nil {
		before = old.Store
	}
	opened, err := b.OpenStore(c, before)
	switch {
	case err != nil || opened == nil:
		return nil, err
	case opened == before:
		return old, nil
	}
	return &store{Store: opened}, nil
}

// close waits until no request uses the store, then closes it.
func (s *store) close(log hclog.Logger) {
	s.users.Wait()
	if err := s.Close(); err != nil {
		log.Debug("lock store closed", "error", err)
	}
}
