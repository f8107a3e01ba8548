package locktest

import (
	"slices"
	"time"
)

// Latest returns the latest of the times, of which there must be one.
func Latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// Earliest returns the earliest of the times, of which there must be one.
func Earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }
