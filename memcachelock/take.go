package memcachelock

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// taker takes locks on a server. A lock is written, and read back with the epoch, in one go: what was written before
// a flush is gone then, and what was written after one comes without the epoch that we know. So no flush goes
// unnoticed by who takes a lock, and his CAS id and the line cost no question more. gomemcache asks one command at a
// time, and so the taker has connections of its own.
type taker struct {
	server *server
	slots  chan struct{} // full: maxTakes are under way

	mu   sync.Mutex
	idle []*takerConn // maxTakes at most, as no more can be in use
}

// maxTakes is the taker's part of maxQuestions.
const maxTakes = maxQuestions / 2

type takerConn struct {
	*wire
	nc net.Conn
}

// take writes a lock, by cas if item has a CAS id, else by add, and reads the named items back, with their CAS ids.
// The errors are those of add and compareAndSwap.
func (v *server) take(item *memcache.Item, names []string) (items map[string]*memcache.Item, err error) {
	err = v.ask(v.taker.slots, false, func() error {
		items, err = v.taker.take(item, names)
		return err
	})
	return items, err
}

func (k *taker) take(item *memcache.Item, names []string) (map[string]*memcache.Item, error) {
	c, err := k.conn()
	if err != nil {
		return nil, err
	}
	_ = c.nc.SetDeadline(time.Now().Add(k.server.store.options.Timeout))
	items, err := c.take(item, names)
	if !answered(err) {
		c.nc.Close() // what comes yet would be taken for the answer to another question
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle = append(k.idle, c)
	return items, err
}

// conn is the connection that was used last, or a new one.
func (k *taker) conn() (*takerConn, error) {
	k.mu.Lock()
	if n := len(k.idle); n > 0 {
		c := k.idle[n-1]
		k.idle = k.idle[:n-1]
		k.mu.Unlock()
		return c, nil
	}
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), k.server.store.options.Timeout)
	defer cancel()
	nc, err := k.server.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &takerConn{newWire(nc), nc}, nil
}

// close closes the connections that idle.
func (k *taker) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.idle {
		c.nc.Close()
	}
	k.idle = nil
}
