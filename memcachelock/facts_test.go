package memcachelock_test

import (
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
		t.Errorf("got %q after a mismatch; want it untouched", got)
	}
	c.want(c.ask("cas k 0 -1 0 %s\r\n", id), "STORED")
	if got, _ := c.get("get", "k"); got != "" {
		t.Errorf("got %q; want it gone at once", got)
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
		t.Errorf("got %q; want what was added first", got)
	}
}

func TestMemcachedKeepsTheCASIDWhenTouched(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	c.want(c.ask("add k 0 2 1\r\na"), "STORED")
	_, before := c.get("gets", "k")
	if got, id := c.get("gat 60", "k"); got != "a" || id != "" {
		t.Errorf("gat: got %q and the CAS id %q; want the value alone", got, id)
	}
	if _, after := c.get("gets", "k"); after != before {
		t.Errorf("got the CAS id %s after gat; want %s still", after, before)
	}
	if got, _ := c.get("gat 60", "gone"); got != "" {
		t.Errorf("gat of nothing: got %q", got)
	}
	time.Sleep(2100 * time.Millisecond) // real time is the subject
	if got, _ := c.get("get", "k"); got != "a" {
		t.Errorf("got %q; want gat to have made it live on", got)
	}
}

func TestMemcachedLetsAnItemLiveForUpToItsTTLAndNotASecondLess(t *testing.T) {
	t.Parallel()
	c := talkTo(t, newFleet(t, 1).servers[0])
	const n = 10 // items, spread over a second
	type item struct {
		name string
		born time.Time // not later than
		done time.Time // not earlier than
	}
	var items []item
	for i := range n {
		it := item{name: strings.Repeat("k", i+1), born: time.Now()}
		c.want(c.ask("add %s 0 3 1\r\na", it.name), "STORED")
		it.done = time.Now()
		items = append(items, it)
		time.Sleep(time.Second / n)
	}
	for len(items) > 0 {
		it := items[0]
		asked := time.Now()
		got, _ := c.get("get", it.name)
		answered := time.Now()
		switch {
		case got == "" && answered.Sub(it.born) < 2*time.Second:
			t.Errorf("an item with a TTL of 3s was gone after %v; want 2s at least", answered.Sub(it.born))
			items = items[1:]
		case got == "":
			items = items[1:]
		case asked.Sub(it.done) > deadline: // its clock ticks once a second, and late on a busy machine
			t.Fatalf("an item with a TTL of 3s is still there after %v", asked.Sub(it.done))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A server that hangs reads what was sent to it when it goes on, even if nobody waits for the answer any more.
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
