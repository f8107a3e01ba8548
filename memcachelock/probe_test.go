package memcachelock_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fpm-gate/fpm-gate/memcachelock"
)

func TestAProbeTellsWhatAServerIsFitFor(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	down := newFleet(t, 1)
	down.servers[0].Kill()
	noCAS := newFleet(t, 1, "-C")
	o := f.options()
	o.Servers = append(o.Servers, down.options().Servers[0], noCAS.options().Servers[0])
	reports, err := memcachelock.Probe(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	fit := reports[0]
	if fit.Err != nil || len(otherThanClock(fit.Warnings)) > 0 {
		t.Errorf("got error %v, warnings %q of a fit server, want none", fit.Err, fit.Warnings)
	}
	if fit.Version == "" || fit.Answer <= 0 || fit.Memory != 64<<20 || fit.Lived <= 0 {
		t.Errorf("got %+v of a fit server", fit)
	}
	if reports[1].Err == nil {
		t.Error("got no error of a server that is down")
	}
	if err := reports[2].Err; err == nil || !strings.Contains(err.Error(), "-C") {
		t.Errorf("got error %v of a server without CAS", err)
	}
}

// otherThanClock leaves warnings of items out that lived too short or too long: memcached counts seconds by a timer,
// which comes late on a machine that has no time for it, and then they do.
func otherThanClock(warnings []string) []string {
	return slices.DeleteFunc(slices.Clone(warnings), func(w string) bool { return strings.Contains(w, "an item with a TTL of") })
}

func TestAProbeWarnsOfEvictions(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, "-m", "2", "-I", "512k")
	c := talkTo(t, f.servers[0])
	value := strings.Repeat("x", 100_000)
	for i := range 200 {
		c.ask("set item-%d 0 0 %d\r\n%s", i, len(value), value)
	}
	reports, err := memcachelock.Probe(context.Background(), f.options())
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; r.Evictions == 0 || len(r.Warnings) == 0 || !strings.Contains(r.Warnings[0], "evicted") {
		t.Errorf("got %+v, want a warning of evictions", r)
	}
}

func TestAProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	reports, err := memcachelock.Probe(ctx, f.options())
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(reports[0].Err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want that of the context", reports[0].Err)
	}
}
