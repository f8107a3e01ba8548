package sessionwatch

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/fpm-gate/fpm-gate/netaddr"
)

// MemcachedPrefix is the default prefix of php-memcached's keys, memcached.sess_prefix.
const MemcachedPrefix = "memc.sess.key."

// Memcached is a Watcher of the sessions of php-memcached with memcached.sess_locking on. A session is open while its
// lock key exists. Create it with NewMemcached.
type Memcached struct {
	*poller
	servers []*memcache.Client
}

// MemcachedOptions describe where php-memcached keeps its sessions.
type MemcachedOptions struct {
	Servers []netaddr.Addr // each unix or tcp
	Prefix  string         // memcached.sess_prefix; usually MemcachedPrefix
	// Report is called once when a server does not answer, and with a nil error when all do again. It may be nil.
	Report func(error)
}

// askTimeout bounds a request to a server.
const askTimeout = 250 * time.Millisecond

// NewMemcached returns a watcher. It opens at most one connection to each server, when it first needs it.
func NewMemcached(o MemcachedOptions) *Memcached {
	m := new(Memcached)
	m.servers = clients(o)
	var places []string
	for _, a := range o.Servers {
		places = append(places, a.Address)
	}
	m.poller = newPoller(keyStore{
		place: "memcached at " + strings.Join(places, ", "),
		names: func(id string) (lock, data string, ok bool) {
			lock, data = o.Prefix+"lock."+id, o.Prefix+id
			return lock, data, legalKey(lock)
		},
		present:  m.present,
		commands: len(m.servers),
		report:   o.Report,
	})
	return m
}

// UnlockMemcached removes the lock of a session that its script has left behind, as one does whose worker was ended. No
// script may use the session.
func UnlockMemcached(o MemcachedOptions, id string) error {
	key := o.Prefix + "lock." + id
	if !legalKey(key) {
		return nil // php-memcached refuses it too
	}
	var errs []error
	for _, c := range clients(o) {
		if err := c.Delete(key); !errors.Is(err, memcache.ErrCacheMiss) {
			errs = append(errs, withoutID(err))
		}
		_ = c.Close()
	}
	return errors.Join(errs...)
}

// Close ends the polling and closes the connections.
func (m *Memcached) Close() {
	m.poller.Close()
	for _, c := range m.servers {
		_ = c.Close()
	}
}

// clients makes a client of each server.
func clients(o MemcachedOptions) (all []*memcache.Client) {
	for _, a := range o.Servers {
		c := memcache.New(a.Address)
		c.Timeout = askTimeout
		c.MaxIdleConns = 1
		c.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, a.Network, a.Address)
		}
		all = append(all, c)
	}
	return all
}

// present sends one command to every server concurrently: which server has a session depends on too many settings of
// PHP to compute it here.
func (m *Memcached) present(_ context.Context, keys []string) (map[string]bool, error) {
	items, errs := make([]map[string]*memcache.Item, len(m.servers)), make([]error, len(m.servers))
	var requests sync.WaitGroup
	for i, c := range m.servers {
		requests.Go(func() { items[i], errs[i] = c.GetMulti(keys) })
	}
	requests.Wait()
	there := make(map[string]bool)
	for i := range items {
		for key := range items[i] {
			there[key] = true
		}
		errs[i] = withoutID(errs[i])
	}
	return there, errors.Join(errs...)
}

// legalKey reports whether memcached accepts a key. An illegal key would fail the whole command.
func legalKey(key string) bool {
	return len(key) <= 250 && strings.IndexFunc(key, func(c rune) bool { return c <= ' ' || c == 0x7f }) < 0
}

// errNonsense is returned when a server violates the protocol.
var errNonsense = errors.New("memcached sent an unexpected response; is another program listening there?")

// withoutID returns err if it is an error of the connection. Other errors quote the response, which may contain a
// session id, so it replaces them.
func withoutID(err error) error {
	if _, is := errors.AsType[net.Error](err); err == nil || is || errors.Is(err, io.EOF) {
		return err
	}
	return errNonsense
}
