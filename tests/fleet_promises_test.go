package tests

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// A gate that is killed while it holds a session frees it by the TTL of its lease; its script may run on.
func TestTheSessionOfAKilledGateIsFreeAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(t, fleetOptions{lock: rejecting, lease: shortLease})
	session := newSession()
	held := begin(f.sites[1], request{path: "/wait.php?mark=killed&session=0", session: session})
	awaitMark(t, f.Rig, "killed.started")
	f.gates[1].Kill()
	start := time.Now()
	r := ask(f.sites[0], request{path: "/note.php?mark=notes&say=next", session: session})
	took := time.Since(start)
	if marked(f.Rig, "killed.ended") {
		t.Error("the script of the killed gate has ended: this shows nothing")
	}
	r.mustBe(t, "next\n")
	// The machine may be busy; but max_wait, after which no request gets the session, is far away.
	if most := shortLease + time.Second + 20*time.Second; took > most {
		t.Errorf("the session was free after %v, want it within the lease's TTL, %v, and a second", took, shortLease)
	}
	t.Logf("free after %v", took)
	letGo(t, f.Rig, "killed")
	<-held
}

// A script that hangs frees its session when the lock expires, on another host too, and not before.
func TestAScriptThatHangsFreesItsSessionOnAnotherHost(t *testing.T) {
	t.Parallel()
	const expiry = 4 * time.Second // more than the lease: it is renewed until then
	f := newFleet(t, fleetOptions{lock: rejecting + "\n    expiry = \"4s\"", lease: shortLease})
	session := newSession()
	start := time.Now()
	held := begin(f.sites[1], request{path: "/wait.php?mark=hangs&session=0", session: session})
	awaitMark(t, f.Rig, "hangs.started")
	r := ask(f.sites[0], request{path: "/note.php?mark=notes&say=next", session: session})
	took := time.Since(start)
	if marked(f.Rig, "hangs.ended") {
		t.Error("the script has ended: this shows nothing")
	}
	r.mustBe(t, "next\n")
	if took < expiry {
		t.Errorf("the session was free after %v, want it held until its expiry, %v", took, expiry)
	}
	t.Logf("free after %v", took)
	letGo(t, f.Rig, "hangs")
	(<-held).mustBe(t, "last\n")
}

// Each of three gates has twenty clients that want one session, all the time: no gate gets much less than its share
// of the turns, and no host waits for much longer than the others. A wait is counted in turns of all, which does not
// depend on how busy the machine is; and only when all clients are there.
func TestGatesShareASessionFairly(t *testing.T) {
	t.Parallel()
	const clients, turns = 20, 300
	f := newFleet(t, fleetOptions{lock: rejecting})
	session := newSession()
	var mu sync.Mutex
	var all sync.WaitGroup
	warmUp := clients * len(f.sites)
	taken := 0
	shares := make([]int, len(f.sites))
	var waits []int
	for i, site := range f.sites {
		for range clients {
			all.Go(func() {
				for before, over := 0, false; !over; {
					r := ask(site, request{path: "/add.php?mark=turns&ms=2", session: session})
					mu.Lock()
					if err := r.failure(); err != nil {
						t.Error(err)
					}
					taken++
					if taken > warmUp && taken <= warmUp+turns {
						shares[i]++
						if before > 0 { // else it was there before the others
							waits = append(waits, taken-before)
						}
					}
					before, over = taken, taken >= warmUp+turns || t.Failed()
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	for i, n := range shares {
		if fair := turns / len(shares); n < fair/4 {
			t.Errorf("gate %d had %d of %d turns, want at least a quarter of its fair share, %d", i, n, turns, fair/4)
		}
	}
	sum := 0
	for _, w := range waits {
		sum += w
	}
	mean, longest := sum/len(waits), slices.Max(waits)
	t.Logf("shares %v, mean wait %d turns, longest %d", shares, mean, longest)
	if longest > 3*mean {
		t.Errorf("the longest wait was %d turns and the mean %d, want it below three times that", longest, mean)
	}
}

// While memcached is down, on_store_failure = "reject" sends away requests with a session, and no others.
func TestAFleetRefusesWhileItsStoreIsDown(t *testing.T) {
	t.Parallel()
	f := newFleet(t, fleetOptions{lock: rejecting})
	f.locks[0].Kill()
	eventually(t, "a request is refused", func() bool {
		return ask(f.sites[0], request{path: "/add.php?ms=0&mark=m", session: newSession()}).status == http.StatusServiceUnavailable
	})
	if r := ask(f.sites[0], request{path: "/nosession.php"}); r.failure() != nil {
		t.Errorf("got %v for a page without a session, want it served", r.failure())
	}
	mustDo(t, f.locks[0].Start())
	eventually(t, "it is served again", func() bool {
		return ask(f.sites[0], request{path: "/add.php?ms=0&mark=m", session: newSession()}).status == http.StatusOK
	})
}
