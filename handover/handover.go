// Package handover passes the locks of a process that ends on to the process that comes after it, while both serve.
//
// The old process offers its locks on a unix socket, and goes on holding those that its requests hold or wait for. The
// new one takes all of them before it serves, so that its own requests wait for them in its queues. The old one asks it
// for each lock that it still needs, and reports each that it has released. When their connection ends, so do all locks
// that the new process holds for the old one. The package moves keys and descriptions; it knows nothing of processes.
package handover

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// kind is what a message says.
type kind string

// The messages. Each is a line of JSON.
const (
	held     kind = "held"     // old to new: a lock that the old process holds
	complete kind = "complete" // old to new: all that are held have been named
	ask      kind = "ask"      // old to new: a lock that the old process needs
	release  kind = "release"  // old to new: a lock that was held or asked for is needed no longer
	granted  kind = "granted"  // new to old: a lock that was asked for
	broken   kind = "broken"   // new to old: an operator has broken a lock
)

// message is what one process sends the other.
type message struct {
	Kind kind                     `json:"kind"`
	Key  []byte                   `json:"key,omitempty"`
	ID   uint64                   `json:"id,omitempty"` // of ask, and of the granted that answers it
	By   *sessionlock.Description `json:"by,omitempty"` // of held
}

var errKey = errors.New("a lock's key has the wrong length; the processes are of versions that do not fit")

func (m *message) key() (k sessionlock.Key, err error) {
	if len(m.Key) != len(k) {
		return k, errKey
	}
	return sessionlock.Key(m.Key), nil
}

// outbox sends messages in their order, without ever blocking the caller: put is called with the mutex of a lock store
// held. Its queue is unbounded, but a lock has only a few messages.
type outbox struct {
	mu      sync.Mutex
	changed sync.Cond
	queue   []message
	closed  bool
}

func newOutbox() *outbox {
	o := new(outbox)
	o.changed.L = &o.mu
	return o
}

func (o *outbox) put(all ...message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, all...)
	o.changed.Signal()
}

// close ends run, and drops what has not been sent.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Signal()
}

// run writes messages until the outbox is closed. A write that fails closes nc, which ends its reader.
func (o *outbox) run(nc net.Conn) {
	for {
		o.mu.Lock()
		for len(o.queue) == 0 && !o.closed {
			o.changed.Wait()
		}
		queue, closed := o.queue, o.closed
		o.queue = nil
		o.mu.Unlock()
		if closed {
			return
		}
		var b []byte
		for _, m := range queue {
			line, err := json.Marshal(m)
			if err != nil {
				continue // there is none that cannot be marshaled
			}
			b = append(append(b, line...), '\n')
		}
		if _, err := nc.Write(b); err != nil {
			_ = nc.Close()
			return
		}
	}
}

// read calls got for each message that comes. It returns nil at the end of the connection, whichever way it comes, and
// an error for a message that it or got does not understand.
func read(nc io.Reader, got func(m *message, k sessionlock.Key) error) error {
	for d := json.NewDecoder(nc); ; {
		var m message
		if err := d.Decode(&m); err != nil {
			if ended(err) {
				return nil
			}
			return err
		}
		k, err := m.key()
		if err != nil && m.Kind != complete {
			return err
		}
		if err := got(&m, k); err != nil {
			return err
		}
	}
}

// ended reports whether err is how a connection ends: also within a message, or with some unread, if the other process
// has died.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET)
}
