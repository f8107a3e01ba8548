package memcachelock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// A memcached that is too small for what else is in it evicts leases. A holder that is first to notice gets its lease back;
// if another gate was first, the holder is notified.
func TestALeaseThatIsEvictedForWantOfMemoryIsNeverTrusted(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, "-m", "2", "-I", "512k")
	o := f.options()
	events := new(journal)
	o.OnEvent = events.add
	s := f.store(t, o)
	elsewhere := f.store(t, f.options())
	m, other := sessionlock.NewManager(s), sessionlock.NewManager(elsewhere)
	kept, taken := lockSoon(t, m, newKey(t)), lockSoon(t, m, newKey(t))
	lease, _ := talkTo(t, f.servers[0]).get("get", lockName(kept.Key()))
	eventually(t, "a lease is evicted, and another gate has the lock", func() bool {
		if elsewhere.Stats().Servers[0].Grace { // the epoch was evicted, too
			return false
		}
		f.crowd(t, len(lease))
		l, err := other.Acquire(context.Background(), taken.Key(), nil, sessionlock.Policy{})
		if err == nil {
			defer l.Release()
			<-taken.Lost() // by the next renewal
			if err := taken.Err(); !errors.Is(err, sessionlock.ErrLost) {
				t.Errorf("got error %v of the lock that another has, want ErrLost", err)
			}
		}
		return err == nil
	})
	eventually(t, "the other lease is there again", func() bool {
		h, ok, err := s.Holder(context.Background(), kept.Key())
		return err == nil && ok && h.Token == kept.Token()
	})
	if err := kept.Err(); err != nil {
		t.Errorf("got error %v for the lock that no other gate wanted, want it held", err)
	}
	events.want(t, memcachelock.LeaseLost)
	taken.Release()
	kept.Release()
}

// crowd fills the server with items of the size of a lease, more than it has room for. It keeps items of each size
// apart and evicts those of the size that it has no room for: leases, and not the epoch, which is smaller and whose
// loss would be seen.
func (f *fleet) crowd(t *testing.T, size int) {
	t.Helper()
	c := talkTo(t, f.servers[0])
	defer c.nc.Close()
	w := bufio.NewWriter(c.nc)
	value := strings.Repeat("x", size)
	for i := range 30_000 {
		fmt.Fprintf(w, "set %s%031d 0 0 %d noreply\r\n%s\r\n", memcachelock.DefaultPrefix+"x", i, len(value), value)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	c.ask("get nothing") // when it answers, it has read the rest
}
