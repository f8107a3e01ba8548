package demo

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A crowd that came more slowly where pages are slow would hide how slow they are.
func TestCrowdComesWhetherItIsAnsweredOrNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opens := time.Now().Add(time.Second) // no request is answered before
		slow := visitorOf(func(*http.Request) (int, string) {
			time.Sleep(time.Until(opens))
			return http.StatusOK, "hello\n"
		})
		c := &crowd{someone: slow}
		began := time.Now()
		c.start(t.Context(), 10*time.Millisecond)
		time.Sleep(2*time.Second - time.Millisecond)
		c.depart()

		all, failed := sumUp(c.between(began, began.Add(time.Hour)))
		if all.Visits != 200 || failed != 0 {
			t.Errorf("got %d visits of which %d failed, want 200 and 0", all.Visits, failed)
		}
		if all.Max != 1000 {
			t.Errorf("the first waited %v, want 1 s", all.Max)
		}
		after, _ := sumUp(c.between(opens, opens.Add(time.Hour)))
		if after.Visits != 100 || after.Max != 0 {
			t.Errorf("after a second: got %+v, want 100 visits that took no time", after)
		}
	})
}

func TestSumUpCountsFailures(t *testing.T) {
	got, failed := sumUp([]visit{
		{took: 10 * time.Millisecond, status: 200},
		{took: 30 * time.Millisecond, status: 502},
		{took: 20 * time.Millisecond}, // none
	})
	if want := (Latency{Visits: 3, P50: 20, P99: 30, Max: 30}); got != want || failed != 2 {
		t.Errorf("got %+v and %d failed, want %+v and 2", got, failed, want)
	}
}
