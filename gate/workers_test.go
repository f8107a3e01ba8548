package gate

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// TestSamplesAreRare: each costs as much as a request. A site whose scripts are over in a moment shows nothing to them.
func TestSamplesAreRare(t *testing.T) {
	w := &Workers{}
	now := time.Now()
	take := func() (n int) {
		for range 1000 {
			if w.maySample(now) {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{
		{0, maxWorkerSamples}, {samplePause - 1, 0}, {1, 1}, {2 * samplePause, 2}, {time.Hour, maxWorkerSamples},
	} {
		now = now.Add(c.after)
		if got := take(); got != c.want {
			t.Errorf("after %v: got %d samples, want %d", c.after, got, c.want)
		}
	}
}

// TestWhatIsUnderstoodIsNotSampled: a request that no other waits for costs nothing there.
func TestWhatIsUnderstoodIsNotSampled(t *testing.T) {
	a, b := netaddr.Addr{Network: "unix", Address: "/run/a"}, netaddr.Addr{Network: "unix", Address: "/run/b"}
	understood := &workerPool{seen: true, known: true}
	for name, c := range map[string]struct {
		pools map[netaddr.Addr]*workerPool
		want  int
	}{
		"nothing is known":              {nil, 1},
		"all are understood":            {map[netaddr.Addr]*workerPool{a: understood, b: understood}, 0},
		"one was not looked at so far":  {map[netaddr.Addr]*workerPool{a: understood}, 1},
		"a session was not seen opened": {map[netaddr.Addr]*workerPool{a: understood, b: {seen: true}}, 1},
		"the others cannot be looked at": {map[netaddr.Addr]*workerPool{
			a: understood, b: {failed: phpworker.ErrRights, again: time.Now().Add(time.Hour)}}, 0},
		"they could not be for a while": {map[netaddr.Addr]*workerPool{
			a: understood, b: {failed: phpworker.ErrRights, again: time.Now().Add(-time.Hour)}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWorkers(newFakeWorker(), hclog.NewNullLogger())
			defer w.Close()
			for at, p := range c.pools {
				w.pools[at] = p
			}
			w.sample(&phpScript{workers: w, exchange: new(fcgi.Exchange)}, []netaddr.Addr{a, b})
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.samples != c.want || len(w.looked) != c.want {
				t.Errorf("got %d samples of %d scripts, want %d", w.samples, len(w.looked), c.want)
			}
		})
	}
}

// TestNothingIsLookedAtWhenItsViewHasStopped: a request that begins to wait just then would have it looked at for ever.
func TestNothingIsLookedAtWhenItsViewHasStopped(t *testing.T) {
	for name, do := range map[string]func(*sessionView){
		"a wait after the stop":      func(v *sessionView) { v.stop(); v.want() },
		"a wait before and after it": func(v *sessionView) { v.want(); v.stop(); v.want() },
		"a wait before it":           func(v *sessionView) { v.want(); v.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWorkers(newFakeWorker(), hclog.NewNullLogger())
			defer w.Close()
			v := &sessionView{script: &phpScript{workers: w, exchange: new(fcgi.Exchange), users: 1}}
			v.begin()
			do(v)
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.looked) != 0 {
				t.Errorf("got %d scripts that are looked at, want none", len(w.looked))
			}
		})
	}
}
