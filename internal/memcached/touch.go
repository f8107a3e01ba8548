package memcached

import (
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
)

// touches makes items live on: many in one round trip, as many are due at about the same time. A host renews each of
// its leases every third of a TTL.
type touches struct {
	lane *lane

	mu      sync.Mutex
	due     []*touch // in the order in which they came
	workers int      // at most maxTouching, one for each slot of the lane
}

// touch is one item that is to live on.
type touch struct {
	name string
	ttl  time.Duration
	done chan struct{} // closed when item and err are set
	item *kv.Item      // as it is; nil: there is none
	err  error
}

// maxTouches is how many go in one round trip.
const maxTouches = 100

// touch makes an item live for ttl from now and returns it, without its version, or kv.ErrMissing.
func (q *touches) touch(name string, ttl time.Duration) (*kv.Item, error) {
	t := &touch{name: name, ttl: ttl, done: make(chan struct{})}
	q.mu.Lock()
	q.due = append(q.due, t)
	if q.workers < maxTouching {
		q.workers++
		go q.work() // until nothing is due: each of these is waited for
	}
	q.mu.Unlock()
	<-t.done
	return t.item, t.err
}

func (q *touches) work() {
	for batch := q.next(); len(batch) > 0; batch = q.next() {
		var names []string
		for _, t := range batch {
			names = append(names, t.name)
		}
		var items []*kv.Item
		// true: to touch an item twice does no harm.
		err := q.lane.inTurn(true, func(c *wire) (err error) {
			items, err = c.touch(names, batch[0].ttl)
			return err
		})
		for i, t := range batch {
			if t.err = err; err == nil {
				t.item = items[i]
			}
			if err == nil && t.item == nil {
				t.err = kv.ErrMissing
			}
			close(t.done)
		}
	}
}

// next takes some that are due, all for the same time, or ends the worker.
func (q *touches) next() []*touch {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for n < min(len(q.due), maxTouches) && q.due[n].ttl == q.due[0].ttl {
		n++
	}
	batch := q.due[:n:n] // an append to due must not write into it
	if q.due = q.due[n:]; n == 0 {
		q.due = nil
		q.workers--
	}
	return batch
}
