package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSidesTakeTurns(t *testing.T) {
	tests := []struct {
		name   string
		plan   plan
		turns  string
		rounds []int // of side a: which of its turns count
	}{
		{"with a round that warms up", plan{rounds: 3, warmUp: true}, "ab ba ab ba", []int{2, 3, 4}},
		{"without one", plan{rounds: 3}, "ab ba ab", []int{1, 2, 3}},
		{"no round", plan{}, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			turns, count := "", 0
			a := &side[int]{name: "a", measure: func() (int, error) { turns += "a"; count++; return count, nil }}
			b := &side[int]{name: "b", measure: func() (int, error) { turns += "b"; return 0, nil }}
			if err := interleave(tt.plan, a, b); err != nil {
				t.Fatal(err)
			}
			if got, want := turns, strings.ReplaceAll(tt.turns, " ", ""); got != want {
				t.Errorf("turns: got %s, want %s", got, want)
			}
			if got, want := a.rounds, tt.rounds; !slices.Equal(got, want) {
				t.Errorf("rounds of a: got %v, want %v", got, want)
			}
		})
	}
}

func TestAnErrorEndsTheTurns(t *testing.T) {
	broken := errors.New("broken")
	a := &side[int]{measure: func() (int, error) { return 0, broken }}
	b := &side[int]{measure: func() (int, error) { t.Error("b was measured"); return 0, nil }}
	if got, want := interleave(plan{rounds: 1}, a, b), broken; got != want {
		t.Errorf("got error %v, want %v", got, want)
	}
}

func TestRatiosAreThoseOfEachRound(t *testing.T) {
	with, without := series{10, 30, 40}, series{10, 10, 20}
	ratios := with.over(without)
	if want := (series{1, 3, 2}); !slices.Equal(ratios, want) {
		t.Errorf("got ratios %v, want %v", ratios, want)
	}
	if got, want := ratios.median(), 2.0; got != want {
		t.Errorf("got median %v, want %v", got, want)
	}
}

func TestMedianAndPercentiles(t *testing.T) {
	hundred := make(series, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	tests := []struct {
		name      string
		got, want float64
	}{
		{"median of one", series{7}.median(), 7},
		{"median of two lies between them", series{1, 2}.median(), 1.5},
		{"median is not moved by one that is far off", series{1, 2, 1000}.median(), 2},
		{"p99 of a hundred leaves one above it", hundred.percentile(99), 99},
		{"p100 is the largest", hundred.percentile(100), 100},
		{"p0 is the smallest", hundred.percentile(0), 1},
		{"p99 of a few is the largest", series{3, 1, 2}.percentile(99), 3},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	for name, f := range map[string]float64{"median": series{}.median(), "percentile": series{}.percentile(50)} {
		if !math.IsNaN(f) {
			t.Errorf("%s of nothing: got %v, want NaN", name, f)
		}
	}
}

func TestAHandoffIsTheTimeThatNobodyWorked(t *testing.T) {
	got := divide(30*time.Millisecond, []time.Duration{10 * time.Millisecond, 0, 10 * time.Millisecond})
	if want := (handed{handoff: 5, gaveUp: 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}
