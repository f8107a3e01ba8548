package main

import "testing"

func TestMemoryIsGivenBackWhenACrowdHasGone(t *testing.T) {
	for name, c := range map[string]struct {
		conns []int
		want  int // times
	}{
		"a quiet site":                {[]int{0, 3, 10, 2, 0}, 0},
		"a crowd that stays":          {[]int{10, 1000, 5000, 4000, 600}, 0},
		"a crowd that goes":           {[]int{10, 1000, 5000, 4000, 400, 10, 0, 3}, 1},
		"a crowd that goes and comes": {[]int{2000, 0, 0, 1500, 100, 0}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var m memory
			got := 0
			for _, n := range c.conns {
				if m.gone(n) {
					got++
				}
			}
			if got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
