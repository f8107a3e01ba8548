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
)

// MemcachedPrefix is what php-memcached puts before its keys, unless its memcached.sess_prefix says otherwise.
const MemcachedPrefix = "memc.sess.key."

// Memcached is a Watcher of the sessions that php-memcached keeps, with memcached.sess_locking on. A session is open
// while its lock key is there. It is made by NewMemcached.
type Memcached struct {
	*poller
	servers []*memcache.Client
}

// MemcachedOptions say where php-memcached keeps its sessions.
type MemcachedOptions struct {
	Network, Addresses []string // of each server: unix and a path, or tcp and host:port
	Prefix             string   // memcached.sess_prefix; usually MemcachedPrefix
	// Report is called when a server does not answer, once, and with a nil error when all do again. It may be nil.
	Report func(error)
}

// askTimeout bounds a request to a server.
const askTimeout = 250 * time.Millisecond

// NewMemcached makes a watcher. It has one connection to each server at most, and none before it has to ask.
func NewMemcached(o MemcachedOptions) *Memcached {
	m := new(Memcached)
	for i, address := range o.Addresses {
		c := memcache.New(address)
		c.Timeout = askTimeout
		c.MaxIdleConns = 1
		network := o.Network[i]
		c.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		m.servers = append(m.servers, c)
	}
	m.poller = newPoller(keyStore{
		place: "memcached at " + strings.Join(o.Addresses, ", "),
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

// Close ends the asking.
func (m *Memcached) Close() {
	m.poller.Close()
	for _, c := range m.servers {
		_ = c.Close()
	}
}

// present asks all servers at once, each with one command: which of them has a session depends on more settings of
// PHP's than are worth knowing here.
func (m *Memcached) present(_ context.Context, keys []string) (map[string]bool, error) {
	items, errs := make([]map[string]*memcache.Item, len(m.servers)), make([]error, len(m.servers))
	var asking sync.WaitGroup
	for i, c := range m.servers {
		asking.Go(func() { items[i], errs[i] = c.GetMulti(keys) })
	}
	asking.Wait()
	there := make(map[string]bool)
	for i := range items {
		for key := range items[i] {
			there[key] = true
		}
		errs[i] = withoutID(errs[i])
	}
	return there, errors.Join(errs...)
}

// legalKey reports whether memcached takes a key. One that it refuses would fail all that are asked for with it.
func legalKey(key string) bool {
	return len(key) <= 250 && strings.IndexFunc(key, func(c rune) bool { return c <= ' ' || c == 0x7f }) < 0
}

// errNonsense is returned when a server does not answer as the protocol says.
var errNonsense = errors.New("memcached does not answer as the protocol says")

// withoutID returns err if it says what became of a connection. Others quote the answer, in which there may be a
// session's id.
func withoutID(err error) error {
	if _, is := errors.AsType[net.Error](err); err == nil || is || errors.Is(err, io.EOF) {
		return err
	}
	return errNonsense
}
