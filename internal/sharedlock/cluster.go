package sharedlock

import (
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// cluster is the servers of a store: which of them have a lock, and how its items are named.
type cluster struct {
	options Options
	label   atomic.Pointer[label]
	members []*member

	background sync.WaitGroup // what goes on concurrently with the requests
	lost       atomic.Uint64  // leases
}

// label is what a store says of the gates that use it.
type label struct {
	gate   string
	realms map[string]string
}

func (c *cluster) gateName() string { return c.label.Load().gate }

// ttl is a second less than the servers are sent: that is how long an item lives at least.
func (c *cluster) ttl() time.Duration { return c.options.Lease - time.Second }

// membersOf returns the servers that have the lock of key: one, or with a quorum all. The first that is up among
// them has its line.
func (c *cluster) membersOf(key sessionlock.Key) []*member {
	n := len(c.members)
	i := int(crc32.ChecksumIEEE([]byte(c.lockName(key))) % uint32(n))
	if !c.options.Quorum {
		return c.members[i : i+1]
	}
	all := make([]*member, 0, n)
	all = append(all, c.members[i:]...)
	return append(all, c.members[:i]...)
}

func (c *cluster) lockName(key sessionlock.Key) string { return c.options.Prefix + key.String() }
func (c *cluster) lineName(key sessionlock.Key) string { return c.lockName(key) + ":line" }

func (c *cluster) tell(e Event) {
	if c.options.OnEvent != nil {
		c.options.OnEvent(e)
	}
}
