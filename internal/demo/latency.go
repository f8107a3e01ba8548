package demo

import (
	"math"
	"slices"
	"time"
)

// Latency summarizes how long visits took.
type Latency struct {
	Visits int    `json:"visits"`
	P50    Millis `json:"p50_ms"`
	P99    Millis `json:"p99_ms"`
	Max    Millis `json:"max_ms"`
}

func latency(took []time.Duration) Latency {
	took = slices.Sorted(slices.Values(took))
	return Latency{
		Visits: len(took),
		P50:    millis(percentile(took, 50)),
		P99:    millis(percentile(took, 99)),
		Max:    millis(percentile(took, 100)),
	}
}

// percentile is the smallest of the sorted values that p percent of them do not exceed; 0 of none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}
