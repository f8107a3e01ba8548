package memcachelock_test

import (
	"context"
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// worker is what operators see of a holder, on all hosts.
type worker struct{}

func (worker) Describe() sessionlock.Description { return sessionlock.Description{Script: "import"} }

// A lock that all hosts with these servers share. It needs three running memcached.
func Example() {
	store, err := memcachelock.New(memcachelock.Options{
		Servers: []netaddr.Addr{
			{Network: "tcp", Address: "192.0.2.1:11211"},
			{Network: "tcp", Address: "192.0.2.2:11211"},
			{Network: "tcp", Address: "192.0.2.3:11211"},
		},
		Quorum: true, // any one of them may fail
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	locks := sessionlock.NewManager(store)
	key := sessionlock.KeyFor(nil, "shop", []byte("the session id"))
	lock, err := locks.Acquire(context.Background(), key, worker{}, sessionlock.Policy{MaxWait: time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lock.Release()

	select {
	case <-lock.Lost(): // another host may have the lock now
		fmt.Println(lock.Err())
	case <-time.After(time.Second): // the work
	}
}
