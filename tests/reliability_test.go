package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// long has the runs take as long as docs/RELIABILITY.md says, and writes their figures there: make test-long.
var long = os.Getenv("FPM_GATE_LONG") == "1"

// trial is a fleet under a fault, while shoppers count.
type trial struct {
	name   string // in the table of docs/RELIABILITY.md
	fleet  fleetOptions
	script string        // "": that of most runs, 5 to 20 ms
	every  time.Duration // of the fault, in a long run
	fault  func(*testing.T, *fleet) (undo func())
	lasts  time.Duration // until undo
	loses  loses
}

// loses says what a run may lose.
type loses int

const (
	nothing  loses = iota // must not lose any
	some                  // must lose some: it shows what the others are worth
	said                  // may lose some, each of which is said
	whatever              // may lose some, which the docs tell
)

const rejecting = `on_store_failure = "reject"`

// trials are the rows of the table, in their order. Of a fault run with on_store_failure = "reject", none may lose
// anything, but where a script outlives its lease.
var trials = []trial{
	{name: "no gate, phpredis", fleet: fleetOptions{gateless: true}, loses: some},
	{name: "no gate, php-memcached", fleet: fleetOptions{gateless: true, handler: "memcached"}, loses: some},
	{name: "no fault, phpredis", fleet: fleetOptions{lock: rejecting}},
	{name: "no fault, php-memcached", fleet: fleetOptions{lock: rejecting, handler: "memcached"}},
	{name: "a gate killed every 3 s", fleet: fleetOptions{lock: rejecting}, every: 3 * time.Second, fault: killGate},
	{name: "memcached killed every 5 s", fleet: fleetOptions{lock: rejecting}, every: 5 * time.Second, fault: killLocks},
	{name: "memcached killed every 5 s, quorum", fleet: fleetOptions{lock: rejecting, quorum: true}, every: 5 * time.Second, fault: killLocks},
	{name: "memcached frozen for 2 s", fleet: fleetOptions{lock: rejecting}, every: 5 * time.Second, fault: freezeLocks, lasts: 2 * time.Second},
	{name: "memcached frozen for 2 s, quorum", fleet: fleetOptions{lock: rejecting, quorum: true}, every: 5 * time.Second, fault: freezeLocks, lasts: 2 * time.Second},
	{name: "flush_all every 5 s", fleet: fleetOptions{lock: rejecting}, every: 5 * time.Second, fault: flushLocks},
	{name: "flush_all every 5 s, quorum", fleet: fleetOptions{lock: rejecting, quorum: true}, every: 5 * time.Second, fault: flushLocks},
	{name: "a gate cut off for 3 s", fleet: fleetOptions{lock: rejecting, relayed: true}, every: 6 * time.Second, fault: cutOff, lasts: 3 * time.Second},
	{name: "a gate cut off for 6 s, scripts of 4 s", fleet: fleetOptions{lock: rejecting, relayed: true}, script: "/add.php?ms=4000", every: 4 * time.Second, fault: cutOff, lasts: 6 * time.Second, loses: said},
	{name: "memcached killed for 2 s, `local`", fleet: fleetOptions{lock: `on_store_failure = "local"`}, every: 5 * time.Second, fault: killLocks, lasts: 2 * time.Second, loses: whatever},
	{name: "memcached killed for 2 s, `pass`", fleet: fleetOptions{lock: `on_store_failure = "pass"`}, every: 5 * time.Second, fault: killLocks, lasts: 2 * time.Second, loses: whatever},
}

// TestNoUpdateIsLostInAFleet has shoppers count in sessions that PHP does not lock, on three hosts at once. It is the
// proof of what a lock promises: each run says how many updates were made, and how many of them the counters have.
func TestNoUpdateIsLostInAFleet(t *testing.T) {
	t.Parallel()
	table := &figures{rows: make([]string, len(trials))}
	t.Cleanup(func() { table.write(t) })
	for i, r := range trials {
		if (r.loses == whatever || r.script != "") && !long {
			continue // it has nothing to assert, or takes its time
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			if r.fault != nil {
				r.fleet.lease, r.fleet.timeout = shortLease, 250*time.Millisecond
			}
			f := newFleet(t, r.fleet)
			got := r.measure(t, f)
			said := f.saidLosses()
			t.Logf("%+v, %d losses said", got, said)
			r.check(t, got, said)
			table.set(i, r, got, said)
		})
	}
}

func (r trial) measure(t *testing.T, f *fleet) takings {
	t.Helper()
	s := shoppers{sites: f.sites, clients: 12, sessions: 3, script: "/add.php?ms=5&more=15"}
	d, pause := 4*time.Second, 1500*time.Millisecond // which is more than the grace after a loss
	if long {
		s.clients, s.sessions = 60, 5
		d, pause = 20*time.Second, r.every
	}
	if r.fleet.gateless {
		s.sites = f.straight
	}
	if r.script != "" {
		s.script = r.script
	}
	if r.fault == nil {
		return s.spend(t, f.Rig, d, nil)
	}
	return s.spend(t, f.Rig, d, func(over <-chan struct{}) { r.harm(t, f, pause, over) })
}

// harm does what the run is about, time and again. All is well when it is over.
func (r trial) harm(t *testing.T, f *fleet, pause time.Duration, over <-chan struct{}) {
	for wait(over, pause) {
		undo := r.fault(t, f)
		wait(over, r.lasts)
		undo()
	}
}

// wait waits, and reports whether there is more to do.
func wait(over <-chan struct{}, d time.Duration) bool {
	select {
	case <-over:
		return false
	case <-time.After(d):
		return true
	}
}

func (r trial) check(t *testing.T, got takings, losses int) {
	t.Helper()
	if got.served == 0 {
		t.Error("nothing was served")
	}
	switch {
	case r.loses == nothing && got.lost != 0:
		t.Errorf("%d of %d updates were lost, want none", got.lost, got.made)
	case r.loses == said && got.lost > losses:
		t.Errorf("%d of %d updates were lost, and %d losses were said, want each to be said", got.lost, got.made, losses)
	case r.loses == some && got.lost == 0:
		t.Error("no update was lost: this shows nothing")
	}
	if r.fault == nil && (got.refused > 0 || got.broken > 0) {
		t.Errorf("%d were refused and %d broke off without a fault, want none", got.refused, got.broken)
	}
}

// saidLosses is how many lines there are in the gates' logs about leases that were lost, or gone for a while.
func (f *fleet) saidLosses() (n int) {
	for _, g := range f.gates {
		for _, line := range []string{"lock lost", "holding the lock on this host only", "lease was missing"} {
			n += strings.Count(g.Log(), line)
		}
	}
	return n
}

// killGate kills the second gate, and starts it again.
func killGate(t *testing.T, f *fleet) (undo func()) {
	gate := f.gates[1]
	gate.Kill()
	return func() { mustDo(t, gate.Start()) }
}

// killLocks kills a memcached, another one each time, and starts it again.
func killLocks(t *testing.T, f *fleet) (undo func()) {
	s := f.nextLocks()
	s.Kill()
	return func() { mustDo(t, s.Start()) }
}

func freezeLocks(t *testing.T, f *fleet) (undo func()) {
	s := f.nextLocks()
	mustDo(t, s.Freeze())
	return func() { mustDo(t, s.Thaw()) }
}

func flushLocks(t *testing.T, f *fleet) (undo func()) {
	s := f.nextLocks()
	_, err := askMemcached(s.Addr, "flush_all")
	mustDo(t, err)
	return func() {}
}

// cutOff has nothing come through between the first gate and memcached.
func cutOff(_ *testing.T, f *fleet) (undo func()) {
	for _, r := range f.relays {
		r.deaf.Store(true)
	}
	return func() {
		for _, r := range f.relays {
			r.heal()
		}
	}
}

func mustDo(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

// figures are the table of docs/RELIABILITY.md.
type figures struct {
	mu   sync.Mutex
	rows []string
}

func (f *figures) set(i int, r trial, got takings, said int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rows[i] = fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %.1f s |",
		r.name, got.served, got.refused, got.broken, got.made, got.lost, said, got.longest.Seconds())
}

const (
	figuresBegin = "<!-- figures of make test-long -->\n"
	figuresEnd   = "<!-- end of the figures -->\n"
)

// write puts the table where it belongs, if the runs were long ones and all of them have been.
func (f *figures) write(t *testing.T) {
	if !long || t.Failed() {
		return
	}
	for _, row := range f.rows {
		if row == "" {
			return
		}
	}
	path := filepath.Join("..", "docs", "RELIABILITY.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), figuresBegin)
	_, after, ok2 := strings.Cut(rest, figuresEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the figures", path)
	}
	table := "| run | served | refused | broken off | updates made | updates lost | losses said | longest answer |\n|---|---|---|---|---|---|---|---|\n" +
		strings.Join(f.rows, "\n") + "\n"
	if err := os.WriteFile(path, []byte(before+figuresBegin+table+figuresEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
