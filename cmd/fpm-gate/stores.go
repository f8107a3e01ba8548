package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/config"
	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// sharedStore is the store in memcached that one config describes, for all of its gates. A config with other servers
// makes another one; the old one goes when the last request that began with it has ended.
type sharedStore struct {
	config  *config.Memcached
	options memcachelock.Options
	store   *memcachelock.Store
	locks   *sessionlock.Manager
	users   sync.WaitGroup // one a gate, for as long as a request of its may use the store
}

// openShared makes the store that c asks for, or goes on with old if that is the same. It is nil if no gate of c
// needs one. Servers that cannot be reached are no error: the store looks for them for as long as it takes.
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
	if s.store, err = memcachelock.New(o); err != nil {
		return nil, fmt.Errorf("memcached: %w", err)
	}
	s.locks = sessionlock.NewManager(s.store)
	return s, nil
}

// sharedBy are the gates whose locks are in memcached: their names, as operators see them, and their realms.
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

// same reports whether the store was made for m, with what its files said then. The gates that use it are no part of
// that: another one must not cost the others their queues.
func (s *sharedStore) same(m *config.Memcached, o memcachelock.Options) bool {
	if !reflect.DeepEqual(s.config, m) {
		return false
	}
	return o.TLS == nil || s.options.TLS.RootCAs.Equal(o.TLS.RootCAs)
}

// warnMoved reports that a reload has cost a gate sight of the locks that are held and waited for, where it has.
func warnMoved(log hclog.Logger, old, n *serving) {
	why := ""
	switch {
	case old.store != nil && n.store != nil && old.store.config.Secret != n.store.config.Secret:
		why = "secret changed"
	case old.config.Realm != n.config.Realm:
		why = "realm changed"
	case old.store != n.store:
		why = "store changed"
	default:
		return
	}
	log.Warn("locks already held or waited for stay where they are; requests that come now do not see them",
		"gate", n.config.Name, "reason", why)
}

// close closes the store once nobody uses it any more. It waits for that.
func (s *sharedStore) close(log hclog.Logger) {
	s.users.Wait()
	if err := s.store.Close(); err != nil {
		log.Debug("memcached closed", "error", err)
	}
}

// storeOptions are those that a memcached block says.
func storeOptions(m *config.Memcached) (memcachelock.Options, error) {
	o := memcachelock.Options{
		Timeout:     m.Timeout,
		Lease:       m.Lease,
		Prefix:      m.KeyPrefix,
		Quorum:      m.Quorum,
		MaxPollRate: m.MaxPollRate,
		Secret:      []byte(m.Secret),
		Username:    m.Username,
		Password:    m.Password,
	}
	for _, a := range m.Servers {
		o.Servers = append(o.Servers, memcachelock.Addr(a))
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

// storeTLS reads the files of a tls block. The certificate is read again for each connection: who renews it does not
// have to tell the gate.
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
	if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		return &pair, err
	}
	return c, nil
}

// logStoreEvent logs what became of a memcached or of a lease: each of them once, not once a request. Of a lost lease
// its gate has a line, which names the request.
func logStoreEvent(log hclog.Logger, e memcachelock.Event) {
	switch e.Kind {
	case memcachelock.ServerDown:
		log.Error("memcached is down", "server", e.Server, "error", e.Err)
	case memcachelock.ServerUp:
		log.Info("memcached is up", "server", e.Server)
	case memcachelock.ServerForgot:
		log.Warn("memcached lost its leases; restoring ours", "server", e.Server)
	case memcachelock.LeaseRegained:
		log.Info("lease was missing and has been restored", "server", e.Server, "lock", e.Key.Short())
	case memcachelock.LeaseGone:
		log.Warn("lease was missing; another host may have held the lock", "server", e.Server, "lock", e.Key.Short())
	case memcachelock.FleetDiffers:
		log.Error("hosts disagree about their locks, which do not exclude each other: give all hosts the same settings",
			"server", e.Server, "error", e.Err)
	case memcachelock.FleetAgrees:
		log.Info("hosts agree about their locks again", "server", e.Server)
	}
}
