package sessionlock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
)

// job is what an operator sees of a holder.
type job string

func (j job) Describe() sessionlock.Description {
	return sessionlock.Description{Script: string(j)}
}

// The second request of a session waits for the first.
func Example() {
	locks := sessionlock.NewManager(sessionlock.NewLocal())
	key := sessionlock.KeyFor(nil, "shop", []byte("the session id"))
	policy := sessionlock.Policy{MaxWait: time.Minute, Expiry: time.Minute}

	first, err := locks.Acquire(context.Background(), key, job("export.php"), policy)
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		second, err := locks.Acquire(context.Background(), key, job("cart.php"), policy)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer second.Release()
		fmt.Println("cart.php has waited for", second.BlockedBy().Script)
	}()
	for len(locks.Snapshot()[0].Waiters) == 0 {
		time.Sleep(time.Millisecond)
	}
	first.Release()
	<-done
	// Output: cart.php has waited for export.php
}

// A wait that exceeds MaxWait ends with an error that names the holder.
func ExampleManager_Acquire() {
	locks := sessionlock.NewManager(sessionlock.NewLocal())
	key := sessionlock.KeyFor(nil, "shop", []byte("the session id"))
	held, err := locks.Acquire(context.Background(), key, job("export.php"), sessionlock.Policy{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release()

	_, err = locks.Acquire(context.Background(), key, job("cart.php"), sessionlock.Policy{MaxWait: time.Millisecond})
	if wait, is := errors.AsType[*sessionlock.WaitError](err); is && errors.Is(err, sessionlock.ErrMaxWait) {
		fmt.Println("cart.php has waited for", wait.BlockedBy.Script, "in vain")
	}
	// Output: cart.php has waited for export.php in vain
}
