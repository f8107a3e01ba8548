package main

import "testing"

func TestTargetsAreReachedOrNot(t *testing.T) {
	two := series{1, 2, 30}
	tests := []struct {
		name          string
		row           row
		target, reach string
	}{
		{"a ratio below its limit", row{ratios: two, target: atMost(2.5)}, "≤ 2.5 ×", "yes"},
		{"a ratio at its limit", row{ratios: two, target: atMost(2)}, "≤ 2 ×", "yes"},
		{"a ratio above its limit", row{ratios: two, target: atMost(1.25)}, "≤ 1.25 ×", "no"},
		{"a ratio that is large enough", row{ratios: two, target: atLeast(2)}, "≥ 2 ×", "yes"},
		{"a ratio that is too small", row{ratios: two, target: atLeast(2.1)}, "≥ 2.1 ×", "no"},
		{"a value within its limit", row{value: 19, ratios: two, target: atMostOf(20, "KiB")}, "≤ 20 KiB", "yes"},
		{"a value beyond its limit", row{value: 1, target: atMostOf(0, "lost")}, "≤ 0 lost", "no"},
		{"no ratio reaches nothing", row{target: atMost(1)}, "≤ 1 ×", "no"},
		{"nothing to reach", row{ratios: two}, "–", "–"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := tt.row.target.String(), tt.target; got != want {
				t.Errorf("got target %q, want %q", got, want)
			}
			if got, want := tt.row.reached(), tt.reach; got != want {
				t.Errorf("got reached %q, want %q", got, want)
			}
		})
	}
}

func TestTablesLineUp(t *testing.T) {
	rows := table{
		{what: "CPU per request", gate: "30.0 µs", other: "25.0 µs: relay", ratios: series{1.1, 1.2, 1.2, 1.3, 9}, target: atMost(1.25)},
		{what: "Lost", gate: "0", other: "5", target: atMostOf(0, "lost")},
	}
	want := `
|                 | with the gate | compared with  | ratio  | middle half | rounds | target   | reached |
| --------------- | ------------- | -------------- | ------ | ----------- | ------ | -------- | ------- |
| CPU per request | 30.0 µs       | 25.0 µs: relay | 1.20 × | 1.20–1.30   | 5      | ≤ 1.25 × | yes     |
| Lost            | 0             | 5              | –      | –           | –      | ≤ 0 lost | yes     |
`
	if got := "\n" + rows.String(); got != want {
		t.Errorf("got%s\nwant%s", got, want)
	}
}

func TestNumbersShowWhatMeansSomething(t *testing.T) {
	for f, want := range map[float64]string{0.123: "0.12", 9.876: "9.88", 12.34: "12.3", 1234.5: "1234"} {
		if got := number(f); got != want {
			t.Errorf("%v: got %s, want %s", f, got, want)
		}
	}
}
