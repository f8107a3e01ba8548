package locktest_test

import (
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/sessionlock"
	"github.com/fpm-gate/fpm-gate/sessionlock/locktest"
)

func TestFakeKeepsThePromises(t *testing.T) {
	server := locktest.NewFake(2 * time.Second)
	locktest.Run(t, locktest.Config{
		New: func(*testing.T) sessionlock.Store {
			gate := server.Gate()
			gate.Slow(time.Millisecond)
			return gate
		},
		Drop: func(_ *testing.T, key sessionlock.Key) { server.Drop(key) },
	})
}
