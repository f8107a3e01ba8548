package memcachelock_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What the package relies on, asked of memcached itself.

func TestMemcachedDeletesByCompareAndSwap(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	c.want(c.ask("add k 0 10 1\r\na"), "STORED")
	_, id := c.get("gets", "k")
	c.want(c.ask("cas k 0 -1 1 %s\r\nb", id+"1"), "EXISTS")
	if got, _ := c.get("get", "k"); got != "a" {
		t.Errorf("got %q after a mismatch, want it untouched", got)
	}
	c.want(c.ask("cas k 0 -1 0 %s\r\n", id), "STORED")
	if got, _ := c.get("get", "k"); got != "" {
		t.Errorf("got %q, want it gone at once", got)
	}
	c.want(c.ask("add k 0 10 1\r\nc"), "STORED")
	c.want(c.ask("cas gone 0 -1 0 %s\r\n", id), "NOT_FOUND")
}

func TestMemcachedAddsOnce(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	c.want(c.ask("add k 0 10 1\r\na"), "STORED")
	c.want(c.ask("add k 0 10 1\r\nb"), "NOT_STORED")
	if got, _ := c.get("get", "k"); got != "a" {
		t.Errorf("got %q, want what was added first", got)
	}
}

func TestMemcachedKeepsTheCASIDWhenTouched(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	c.want(c.ask("add k 0 2 1\r\na"), "STORED")
	_, before := c.get("gets", "k")
	if got, id := c.get("gat 60", "k"); got != "a" || id != "" {
		t.Errorf("gat: got %q and the CAS id %q, want the value alone", got, id)
	}
	if _, after := c.get("gets", "k"); after != before {
		t.Errorf("got the CAS id %s after gat, want %s still", after, before)
	}
	if got, _ := c.get("gat 60", "gone"); got != "" {
		t.Errorf("gat of nothing: got %q", got)
	}
	time.Sleep(2100 * time.Millisecond) // real time is the subject
	if got, _ := c.get("get", "k"); got != "a" {
		t.Errorf("got %q, want gat to have made it live on", got)
	}
}

// An item is gone when memcached's clock has ticked as often as its TTL says. It ticks once a second, so that is up to a
// second less; on a machine that has no time for memcached it ticks late, and then faster.
func TestMemcachedLetsAnItemLiveForTheTicksOfItsTTL(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	const n, ttl = 10, 3 // items, spread over a second
	type item struct {
		name       string
		born, done int // not before that tick and not after this
	}
	var items []item
	for i := range n {
		it := item{name: strings.Repeat("k", i+1), born: c.uptime()}
		c.want(c.ask("add %s 0 %d 1\r\na", it.name, ttl), "STORED")
		it.done = c.uptime()
		items = append(items, it)
		time.Sleep(time.Second / n)
	}
	for len(items) > 0 {
		it := items[0]
		before := c.uptime()
		got, _ := c.get("get", it.name)
		after := c.uptime()
		switch {
		case got == "" && after < it.born+ttl:
			t.Errorf("an item with a TTL of %d s was gone after %d ticks", ttl, after-it.born)
		case got != "" && before >= it.done+ttl:
			t.Errorf("an item with a TTL of %d s is still there after %d ticks", ttl, before-it.done)
		case got != "":
			time.Sleep(5 * time.Millisecond)
			continue
		}
		items = items[1:]
	}
}

// uptime is how often memcached's clock has ticked.
func (c *talk) uptime() (ticks int) {
	c.Helper()
	for line := c.ask("stats"); line != "END"; line = c.line() {
		_, _ = fmt.Sscanf(line, "STAT uptime %d", &ticks)
	}
	return ticks
}

// A server that hangs reads what was sent to it when it goes on, even if its client no longer waits for the answer.
func TestMemcachedHearsALateQuestion(t *testing.T) {
	t.Parallel()
	s := newFleet(t, 1).servers[0]
	c, other := talkTo(t, s), talkTo(t, s)
	c.want(c.ask("add first 0 10 1\r\na"), "STORED") // its connection is served, and not only accepted
	freeze(t, s)
	if _, err := c.nc.Write([]byte("add late 0 10 1\r\na\r\n")); err != nil {
		t.Fatal(err)
	}
	c.nc.Close()
	thaw(t, s)
	eventually(t, "the late question is heard", func() bool {
		got, _ := other.get("get", "late")
		return got == "a"
	})
}

func TestMemcachedTellsTheLinesOfItsStats(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	want := map[string]bool{"version": true, "evictions": true, "limit_maxbytes": true, "bytes": true, "uptime": true}
	for line := c.ask("stats"); line != "END"; line = c.line() {
		words := strings.Fields(line)
		if len(words) > 1 {
			delete(want, words[1])
		}
	}
	if len(want) > 0 {
		t.Errorf("stats has no %v", want)
	}
}
