package demo

import (
	"maps"
	"testing"
	"time"
)

func TestLostUpdates(t *testing.T) {
	ok, rejected := answer{status: 200}, answer{status: 503}
	for _, c := range []struct {
		name    string
		count   int
		answers []answer
		want    int
	}{
		{"none", 4, []answer{ok, ok, ok}, 0},
		{"some", 2, []answer{ok, ok, ok}, 2},
		{"a request that was rejected promised nothing", 2, []answer{ok, rejected, rejected}, 0},
		{"one that broke off may have counted all the same", 3, []answer{ok, {}}, 0},
		{"the session itself is gone", 0, []answer{ok}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lost(c.count, c.answers); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestByStatus(t *testing.T) {
	got := byStatus([]answer{{status: 200}, {status: 503}, {}, {status: 200}})
	if want := map[string]int{"200": 2, "503": 1, "broken": 1}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMiddleRound(t *testing.T) {
	got := middle([]TwoScripts{{Total: 900}, {Total: 700.2}, {Total: 700.7}})
	if got.Total != 700.7 {
		t.Errorf("got %v, want 700.7", got.Total)
	}
}

func TestHangTellsOfATypicalPage(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []answer
		want    HangSide
	}{
		{"no answers", []answer{{took: time.Second}, {took: 2 * time.Second}}, HangSide{Pages: 2}},
		{"the one in the middle, of those that came",
			[]answer{{200, "", time.Second}, {503, "", 3 * time.Second}, {0, "", 9 * time.Second}, {503, "", 3100 * time.Millisecond}},
			HangSide{Pages: 4, PagesAnswered: 3, PageStatus: 503, PageWait: 3000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got HangSide
			got.tell(c.answers)
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
