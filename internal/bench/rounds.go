package main

import (
	"math"
	"slices"
)

// side is one of the things that are compared: how it is measured once, and what
// came of it, in the order of the rounds.
type side[T any] struct {
	name    string
	measure func() (T, error)
	rounds  []T
}

// plan is how sides take turns.
type plan struct {
	rounds int
	warmUp bool                         // a round before the first is forgotten
	say    func(round int, side string) // is called for each turn; may be nil
}

// interleave measures all sides in turn, over and over, each round in the other
// direction than the one before, so that no side always comes first or after
// the same other one.
func interleave[T any](p plan, sides ...*side[T]) error {
	order := slices.Clone(sides)
	first := 1
	if p.warmUp {
		first = 0
	}
	for round := first; round <= p.rounds; round++ {
		for _, s := range order {
			if p.say != nil {
				p.say(round, s.name)
			}
			value, err := s.measure()
			if err != nil {
				return err
			}
			if round > 0 {
				s.rounds = append(s.rounds, value)
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// of picks one number of each round of a side.
func of[T any](s *side[T], number func(T) float64) series {
	values := make(series, len(s.rounds))
	for i, v := range s.rounds {
		values[i] = number(v)
	}
	return values
}

// series are numbers by rounds, of one side or the ratios of two.
type series []float64

// over returns the ratio of s to base in each round.
func (s series) over(base series) series {
	ratios := make(series, min(len(s), len(base)))
	for i := range ratios {
		ratios[i] = s[i] / base[i]
	}
	return ratios
}

// median returns the value in the middle, NaN of nothing.
func (s series) median() float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// percentile returns the smallest value that p percent of all do not exceed,
// NaN of nothing.
func (s series) percentile(p float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func (s series) sum() (sum float64) {
	for _, v := range s {
		sum += v
	}
	return sum
}
