//go:build race

package memcachelock_test

// mostWaits is what the race detector can follow: it has room for 8,128 goroutines.
const mostWaits = 1_500
