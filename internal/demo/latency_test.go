package demo

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		name   string
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{"of nothing", nil, 99, 0},
		{"of one", []time.Duration{7}, 50, 7},
		{"the lowest", hundred, 0, 1},
		{"the median of an even number is the lower one", hundred, 50, 50},
		{"the median of an odd number is the middle", []time.Duration{1, 2, 9}, 50, 2},
		{"a hundred has one above its p99", hundred, 99, 99},
		{"a value between two ranks counts as the higher", hundred[:50], 99, 50},
		{"the highest", hundred, 100, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := percentile(c.sorted, c.p); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestLatencySortsACopy(t *testing.T) {
	took := []time.Duration{30 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond}
	got := latency(took)
	if want := (Latency{Visits: 3, P50: 20, P99: 30, Max: 30}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if took[0] != 30*time.Millisecond {
		t.Error("the argument has been sorted")
	}
}
