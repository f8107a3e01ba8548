package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// patience bounds how long the locks of the old process may take to come. The new one accepts no connection until then.
const patience = 5 * time.Second

// forever is longer than any process takes to end.
const forever = 24 * time.Hour

// Taken are the locks that this process holds for another one. It is made by Take.
type Taken struct {
	locks *sessionlock.Manager
	conn  net.Conn
	out   *outbox
	done  chan struct{}
	err   error // guarded by done

	mu       sync.Mutex
	all      map[sessionlock.Key]*takenLock
	complete chan struct{} // closed when all that was held has come
	waiting  sync.WaitGroup
}

// takenLock is a lock that the other process holds, or waits for.
type takenLock struct {
	lock   *sessionlock.Lock // nil: it waits
	cancel context.CancelFunc
}

// Take takes the locks that the process at nc holds, and holds them in locks until that process reports their release,
// or the connection ends. It returns when all of them are held. The manager must not be in use yet. Take owns nc.
func Take(nc net.Conn, locks *sessionlock.Manager) (*Taken, error) {
	t := &Taken{
		locks: locks, conn: nc, out: newOutbox(), done: make(chan struct{}),
		all: make(map[sessionlock.Key]*takenLock), complete: make(chan struct{}),
	}
	go t.out.run(nc)
	go func() {
		defer close(t.done)
		t.err = read(nc, t.got)
		t.end()
	}()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	var err error
	select {
	case <-t.complete:
		return t, nil
	case <-t.done:
		if t.isComplete() { // and what came then, if anything, was wrong: see Err
			return t, nil
		}
		if err = t.err; err == nil {
			err = errors.New("the connection has ended")
		}
	case <-timeout.C:
		err = fmt.Errorf("nothing came for %v", patience)
	}
	_ = nc.Close() // ends read, and with it all locks that have come so far
	<-t.done
	return nil, fmt.Errorf("take locks over: %w", err)
}

// Done is closed when the other process has gone, and none of its locks is held any longer.
func (t *Taken) Done() <-chan struct{} { return t.done }

// Err returns, after Done, why the locks of the other process ended although it has not: it sent what this one does not
// understand. It returns nil if that process has gone.
func (t *Taken) Err() error {
	<-t.done
	return t.err
}

// Len returns how many locks the other process holds or waits for.
func (t *Taken) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.all)
}

// got takes a message of the other process.
func (t *Taken) got(m *message, key sessionlock.Key) error {
	switch m.Kind {
	case held:
		return t.hold(key, m.By)
	case complete:
		if t.isComplete() {
			return errOrder
		}
		close(t.complete)
	case ask:
		return t.acquire(key, m.ID)
	case release:
		t.release(key)
	}
	return nil
}

// errOrder is returned for a message that cannot follow those before it.
var errOrder = errors.New("a message is out of order; the processes are of versions that do not fit")

// isComplete reports whether all that was held has come.
func (t *Taken) isComplete() bool {
	select {
	case <-t.complete:
		return true
	default:
		return false
	}
}

// needs reports whether the other process holds a lock, or waits for it, already.
func (t *Taken) needs(key sessionlock.Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[key] != nil
}

// holder describes what holds a lock in the other process.
type holder sessionlock.Description

func (h holder) Describe() sessionlock.Description { return sessionlock.Description(h) }

func holderOf(by *sessionlock.Description) holder {
	if by == nil {
		return holder{Path: "a request of the process that ends"}
	}
	return holder(*by)
}

// hold holds a lock that the other process holds already. It does not wait: the manager is not in use yet, so each lock
// is free. The lock has no expiry here; the one in the other process goes on.
func (t *Taken) hold(key sessionlock.Key, by *sessionlock.Description) error {
	if t.isComplete() || t.needs(key) {
		return errOrder
	}
	n := &takenLock{cancel: func() {}}
	l, err := t.locks.Acquire(context.Background(), key, holderOf(by), t.policy(key, n))
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n.lock = l
	t.all[key] = n
	return nil
}

// policy has the other process hear of a lock that ends here, by an operator.
func (t *Taken) policy(key sessionlock.Key, n *takenLock) sessionlock.Policy {
	return sessionlock.Policy{MaxWait: forever, OnLoss: func(sessionlock.Description, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.all[key] == n { // else it was released at the same moment
			t.out.put(message{Kind: broken, Key: key[:]})
		}
	}}
}

// acquire waits for a lock that the other process needs, among the requests of this one.
func (t *Taken) acquire(key sessionlock.Key, id uint64) error {
	if t.needs(key) {
		return errOrder
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &takenLock{cancel: cancel}
	t.mu.Lock()
	t.all[key] = n // before the wait begins, so that release can end it
	t.mu.Unlock()
	t.waiting.Go(func() {
		l, err := t.locks.Acquire(ctx, key, holderOf(nil), t.policy(key, n))
		if err != nil {
			return // it is needed no longer
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.all[key] != n { // released while Acquire returned
			l.Release()
			return
		}
		n.lock = l
		t.out.put(message{Kind: granted, Key: key[:], ID: id})
	})
	return nil
}

// release ends a lock of the other process, or its wait.
func (t *Taken) release(key sessionlock.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.all[key]; l != nil {
		delete(t.all, key)
		l.end()
	}
}

// end releases the lock, or ends the wait for it. It is called with the mutex of Taken held.
func (l *takenLock) end() {
	l.cancel()
	if l.lock != nil {
		l.lock.Release()
	}
}

// end ends all locks of the other process, which has gone.
func (t *Taken) end() {
	_ = t.conn.Close()
	t.out.close()
	t.mu.Lock()
	for key, l := range t.all {
		delete(t.all, key)
		l.end()
	}
	t.mu.Unlock()
	t.waiting.Wait() // their Acquires end with their contexts
}
