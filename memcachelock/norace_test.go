//go:build !race

package memcachelock_test

// mostWaits is how many locks one gate waits for in a test.
const mostWaits = 10_000
