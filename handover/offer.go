package handover

import (
	"net"
	"sync"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// Offer is the side of the process that ends. It is made by NewOffer.
type Offer struct {
	listener net.Listener
	store    *sessionlock.Local   // the leases of this process, which the successor takes over
	locks    *sessionlock.Manager // the queues above store; they go on until their requests have ended

	mu     sync.Mutex
	conn   net.Conn // to the successor; nil: there is none
	closed bool
	done   sync.WaitGroup
}

// NewOffer offers the locks of a manager, and of its store, to the processes that connect to l, one after the other.
// While there is none, and after the last one has gone, locks are taken within this process. It owns l.
func NewOffer(l net.Listener, store *sessionlock.Local, locks *sessionlock.Manager) *Offer {
	o := &Offer{listener: l, store: store, locks: locks}
	o.done.Go(func() {
		// One successor at a time. Another one comes only after the first has gone.
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			if o.setConn(nc) {
				o.serve(nc)
			}
			_ = nc.Close()
		}
	})
	return o
}

// Close ends the offer, once no request of this process holds or needs a lock: the successor then holds none for it.
func (o *Offer) Close() {
	_ = o.listener.Close()
	o.mu.Lock()
	o.closed = true
	if o.conn != nil {
		_ = o.conn.Close()
	}
	o.mu.Unlock()
	o.done.Wait()
}

// setConn notes the successor's connection for Close. It returns false if the offer was closed before.
func (o *Offer) setConn(nc net.Conn) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.conn = nc
	return !o.closed
}

// serve hands all locks over to the process at nc, and stays with it until it has gone.
func (o *Offer) serve(nc net.Conn) {
	s := &successor{offer: o, out: newOutbox(), asked: make(map[sessionlock.Key]question)}
	by := describe(o.locks)
	// After HandOver the store calls s for each lease that a manager requests, perhaps before begin.
	var all []message
	for _, key := range o.store.HandOver(s) {
		all = append(all, newMessage(held, key, by[key]))
	}
	s.begin(append(all, message{Kind: complete}))
	o.locks.AssumeWaiters() // a script that has closed its session is to hold up no request of the other process
	var writing sync.WaitGroup
	writing.Go(func() { s.out.run(nc) })
	_ = read(nc, s.got) // until the successor has gone, or Close; an error means the same
	_ = nc.Close()
	s.out.close()
	writing.Wait()
	o.store.TakeBack(s) // before end: those that then ask again must not ask s
	s.end()
}

// describe returns what holds each lock, or waits for it, for the operators of the new process.
func describe(locks *sessionlock.Manager) map[sessionlock.Key]sessionlock.Description {
	by := make(map[sessionlock.Key]sessionlock.Description)
	for _, s := range locks.Snapshot() {
		switch {
		case s.Held:
			by[s.Key] = s.Holder
		case len(s.Waiters) > 0:
			by[s.Key] = s.Waiters[0].Description
		}
	}
	return by
}

func newMessage(k kind, key sessionlock.Key, by sessionlock.Description) message {
	return message{Kind: k, Key: key[:], By: &by}
}

// successor is the process that has taken over, as the store knows it.
type successor struct {
	offer *Offer
	out   *outbox

	mu    sync.Mutex
	begun bool
	early []message // what came before begin: it follows what is held
	asked map[sessionlock.Key]question
	last  uint64 // id of a question
	ended bool
}

// question is a lock that has been asked for. Its id tells its answer from a late one to an earlier question about the
// same lock, which was withdrawn.
type question struct {
	id      uint64
	granted chan struct{}
}

var _ sessionlock.Successor = (*successor)(nil)

// Ask asks the other process for a lock. If that has gone by now, the store finds out by itself.
func (s *successor) Ask(key sessionlock.Key) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	q := question{s.last, make(chan struct{})}
	if s.ended {
		close(q.granted)
		return q.granted
	}
	s.asked[key] = q
	s.send(message{Kind: ask, Key: key[:], ID: q.id})
	return q.granted
}

// Release tells the other process that this one does not need a lock any longer.
func (s *successor) Release(key sessionlock.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asked, key)
	s.send(message{Kind: release, Key: key[:]})
}

// send sends a message after those of begin. It is called with mu held.
func (s *successor) send(m message) {
	if s.begun {
		s.out.put(m)
	} else {
		s.early = append(s.early, m)
	}
}

// begin sends what is held, and then what has come since.
func (s *successor) begin(all []message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
	s.out.put(append(all, s.early...)...)
	s.early = nil
}

// got takes a message of the other process.
func (s *successor) got(m *message, key sessionlock.Key) error {
	switch m.Kind {
	case granted:
		s.mu.Lock()
		defer s.mu.Unlock()
		if q, waits := s.asked[key]; waits && q.id == m.ID {
			delete(s.asked, key)
			close(q.granted)
		}
	case broken:
		s.offer.store.Break(key)
		s.offer.locks.Break(key)
	}
	return nil
}

// end lets those go on that wait for an answer: the store has been taken back, and they ask again.
func (s *successor) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for key, q := range s.asked {
		delete(s.asked, key)
		close(q.granted)
	}
}
