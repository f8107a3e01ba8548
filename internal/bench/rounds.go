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

// interleave measures all sides in turn, over and over, each round in the other
// direction than the one before, so that no side is always first after another.
// A round before the first warms up and is forgotten.
func interleave[T any](rounds int, progress func(round int, side string), sides ...*side[T]) error {
	order := slices.Clone(sides)
	for round := range rounds + 1 {
		for _, s := range order {
			progress(round, s.name)
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

// series are the values of one side, or of the ratios of two, by rounds.
type series []float64

// of picks one number of each round of a side.
func of[T any](s *side[T], number func(T) float64) series {
	var values series
	for _, v := range s.rounds {
		values = append(values, number(v))
	}
	return values
}

// over returns the ratio of s to base in each round.
func (s series) over(base series) series {
	var ratios series
	for i := range min(len(s), len(base)) {
		ratios = append(ratios, s[i]/base[i])
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
