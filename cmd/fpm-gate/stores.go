package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/internal/supervisor"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// sharedStore is the memcached store of one config, shared by its gates.
type sharedStore struct {
	*memcachelock.Store
	config  *config.Memcached
	options memcachelock.Options
	locks   *sessionlock.Manager
}

var _ supervisor.Store = (*sharedStore)(nil)

// openShared returns the store that c describes: old if it is the same, nil if no gate of c needs one. Unreachable
// servers are no error: the store keeps trying.
func openShared(c *config.Config, old *sharedStore, log hclog.Logger) (*sharedStore, error) {
	gate, realms := sharedBy(c)
	if len(realms) == 0 {
		return nil, nil
	}
	o, err := storeOptions(c.Memcached)
	if err != nil {
		return nil, err
	}
	if old != nil && old.same(c.Memcached, o) {
		return old, nil
	}
	s := &sharedStore{config: c.Memcached, options: o}
	o.Gate, o.Realms = gate, realms
	o.OnEvent = func(e memcachelock.Event) { logStoreEvent(log, e) }
	if s.Store, err = memcachelock.New(o); err != nil {
		return nil, fmt.Errorf("memcached: %w", err)
	}
	s.locks = sessionlock.NewManager(s.Store)
	return s, nil
}

// Relabel names the gates of c as the store's users.
func (s *sharedStore) Relabel(c *config.Config) { s.Store.Relabel(sharedBy(c)) }

// holder returns the holder of the lock of key, for the log of a gate; false: none, or the store cannot say.
func (s *sharedStore) holder(ctx context.Context, key sessionlock.Key) (sessionlock.RemoteHolder, bool) {
	h, held, err := s.Holder(ctx, key)
	return h, held && err == nil
}

// sharedBy returns the gates whose locks are in memcached: their names, joined for operators, and realms by name.
func sharedBy(c *config.Config) (names string, realms map[string]string) {
	var gates []string
	realms = make(map[string]string)
	for _, g := range c.Gates {
		if g.Lock.Store == config.StoreMemcached {
			gates = append(gates, g.Name)
			realms[g.Name] = g.Realm
		}
	}
	return strings.Join(gates, ","), realms
}

// same reports whether the store was made for m with the same TLS files. The gates that use it do not matter: adding
// one must not cost the others their queues.
func (s *sharedStore) same(m *config.Memcached, o memcachelock.Options) bool {
	if !reflect.DeepEqual(s.config, m) {
		return false
	}
	// The config names a file of CAs, whose content may have changed since. The pair of a client is read anew in any
	// case.
	return o.TLS == nil || s.options.TLS.RootCAs.Equal(o.TLS.RootCAs)
}

// storeOptions returns the options that a memcached block describes.
func storeOptions(m *config.Memcached) (memcachelock.Options, error) {
	o := memcachelock.Options{
		Servers:     m.Servers,
		Timeout:     m.Timeout,
		Lease:       m.Lease,
		Prefix:      m.KeyPrefix,
		Quorum:      m.Quorum,
		MaxPollRate: m.MaxPollRate,
		Secret:      []byte(m.Secret),
		Username:    m.Username,
		Password:    m.Password,
	}
	if m.TLS == nil {
		return o, nil
	}
	var err error
	if o.TLS, err = storeTLS(m.TLS); err != nil {
		return o, fmt.Errorf("memcached: tls: %w", err)
	}
	return o, nil
}

// storeTLS reads the files of a tls block. The certificate is read again for each connection, so a renewed one needs no
// reload.
func storeTLS(t *config.TLS) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: there is no certificate in %s", t.CA)
		}
	}
	if t.Cert == "" {
		return c, nil
	}
	// Only to see now whether they can be read and belong together.
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		return &pair, err
	}
	return c, nil
}

// logStoreEvent logs a change of a memcached or a lease once, not once per request. A lost lease is also logged by its
// gate, with the request.
func logStoreEvent(log hclog.Logger, e memcachelock.Event) {
	switch e.Kind {
	case memcachelock.ServerDown:
		log.Error("memcached is down", "server", e.Server, "error", e.Err)
	case memcachelock.ServerUp:
		log.Info("memcached is up", "server", e.Server)
	case memcachelock.ServerForgot:
		log.Warn("memcached lost its leases; restoring ours", "server", e.Server)
	case memcachelock.LeaseRegained:
		log.Info("lease was missing and has been restored", "server", e.Server, "key", e.Key.Short())
	case memcachelock.LeaseGone:
		log.Warn("lease was missing; another host may have held the lock", "server", e.Server, "key", e.Key.Short())
	case memcachelock.FleetDiffers:
		log.Error("hosts disagree about their locks, which do not exclude each other; give all hosts the same settings",
			"server", e.Server, "error", e.Err)
	case memcachelock.FleetAgrees:
		log.Info("hosts agree about their locks again", "server", e.Server)
	}
}
