package handover_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/fpm-gate/fpm-gate/handover"
	"github.com/fpm-gate/fpm-gate/sessionlock"
)

type script string

func (s script) Describe() sessionlock.Description {
	return sessionlock.Description{Script: string(s)}
}

// The next process takes the locks of the one before it. Both are this program here.
func Example() {
	dir, err := os.MkdirTemp("", "handover")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	policy := sessionlock.Policy{MaxWait: time.Minute}
	key := sessionlock.KeyFor(nil, "shop", []byte("the session id"))

	// The process that ends.
	store := sessionlock.NewLocal()
	before := sessionlock.NewManager(store)
	held, err := before.Acquire(context.Background(), key, script("export.php"), policy)
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("unix", filepath.Join(dir, "locks.sock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	offer := handover.NewOffer(l, store, before)
	defer offer.Close()

	// The process after it.
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	after := sessionlock.NewManager(sessionlock.NewLocal())
	taken, err := handover.Take(nc, after)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("locks taken:", taken.Len())

	held.Release() // when export.php has ended
	lock, err := after.Acquire(context.Background(), key, script("cart.php"), policy)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lock.Release()
	fmt.Println("cart.php has the lock")
	// Output:
	// locks taken: 1
	// cart.php has the lock
}
