package main

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/rig"
)

const (
	fleetScript  = "/handed.php?ms=20"
	fleetWaiting = 1000 // sessions
)

// measureFleet measures locks that two hosts share in memcached: what one costs
// that is free, how long it takes to go to the other host, and what waiting asks
// of memcached. The hosts are nginx, gate and PHP-FPM twice on this machine: the
// way between them is no part of it.
func measureFleet(st *stage) ([]row, error) {
	f, err := st.newFleet()
	if err != nil {
		return nil, err
	}
	rows, err := f.measureFree()
	if err != nil {
		return nil, err
	}
	handed, err := f.measureHandOffs()
	if err != nil {
		return nil, err
	}
	waiting, err := f.measureWaiting()
	return append(append(rows, handed...), waiting), err
}

// fleet is what hosts share: the stores of their locks and sessions.
type fleet struct {
	*stage
	locks    *rig.Server
	handlers []handler
	unlocked handler // no lock of its own
}

func (st *stage) newFleet() (*fleet, error) {
	f := &fleet{stage: st}
	var err error
	if f.handlers, err = st.handlers(); err != nil {
		return nil, err
	}
	sessions, err := st.Redis(rig.StoreOptions{})
	if err != nil {
		return nil, err
	}
	f.unlocked = handler{"phpredis without locking", rig.RedisSessions(sessions, false)}
	f.locks, err = st.Memcached(rig.StoreOptions{Name: "locks"})
	return f, err
}

// host is a chain whose gate has its locks in memcached, and counts its requests to it.
type host struct {
	*chain
	admin rig.Addr
}

func (f *fleet) startHost(name string, upstream string) (*host, error) {
	h := new(host)
	var err error
	if h.admin, err = f.Reserve("tcp", "admin"); err != nil {
		return nil, err
	}
	h.chain, err = f.startChain(name, rig.PHPOptions{Workers: workers, INI: f.unlocked.ini}, &gateSettings{
		upstream: upstream,
		block: fmt.Sprintf("realm = \"fleet\"\n  lock {\n    store = \"memcached\"\n    max_wait = \"2m\"\n"+
			"    max_waiters = %d\n  }", 2*handoffs),
		outside: fmt.Sprintf("memcached { servers = [%q] }\nadmin { listen = %q }\n", f.locks.Addr, h.admin),
	})
	return h, err
}

// asked returns the number of round trips to memcached so far.
func (h *host) asked() (float64, error) {
	resp, err := http.Get("http://" + h.admin.Address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "fpm_gate_store_round_trips_total{"); ok {
			_, figure, _ := strings.Cut(rest, "} ")
			return strconv.ParseFloat(figure, 64)
		}
	}
	return 0, fmt.Errorf("the gate tells no questions to memcached")
}

// loadedHost is what came of a load of a host.
type loadedHost struct {
	loaded
	asked float64
}

// measureFree compares requests whose locks are free in memcached and in the process.
func (f *fleet) measureFree() ([]row, error) {
	php := rig.PHPOptions{Workers: workers}
	local, err := f.startChain("local locks", php, &recommended)
	if err != nil {
		return nil, err
	}
	shared, err := f.startHost("locks in memcached", recommended.upstream)
	if err != nil {
		return nil, err
	}
	none := func() (float64, error) { return 0, nil }
	app := func(c *chain) *load {
		return &load{site: c.site, path: "/app.php?ms=3", want: "made\n", browsers: 2 * workers}
	}
	a := f.free(local, hello(local.site, 2*workers), none)
	b := f.free(shared.chain, hello(shared.site, 2*workers), shared.asked)
	c, d := f.free(local, app(local), none), f.free(shared.chain, app(shared.chain), shared.asked)
	if err := interleave(f.plan("requests per second", 21), a, b, c, d); err != nil {
		return nil, err
	}
	trips := of(b, func(l loadedHost) float64 { return l.asked / float64(l.requests) }).median()
	return []row{
		freeRow("Requests per second, a page of nothing", b, a),
		freeRow("the same, a page of 3 ms", d, c),
		{
			what: "Round trips for a lock that is free", gate: number(trips),
			other: "three commands: add and gets in one, cas", value: trips, target: atMostOf(2.05, "round trips"),
		},
	}, nil
}

func freeRow(what string, shared, local *side[loadedHost]) row {
	perSecond := func(l loadedHost) float64 { return l.perSecond() }
	return row{
		what:   what,
		gate:   number(of(shared, perSecond).median()) + "/s",
		other:  number(of(local, perSecond).median()) + "/s: locks in the process",
		ratios: of(shared, perSecond).over(of(local, perSecond)),
		target: atLeast(0.8),
	}
}

func (f *fleet) free(c *chain, l *load, asked func() (float64, error)) *side[loadedHost] {
	return &side[loadedHost]{name: c.name, measure: func() (got loadedHost, err error) {
		before, err := asked()
		if err != nil {
			return got, err
		}
		if got.loaded, err = l.run(f.ctx, full(f.stage, 300*time.Millisecond, 50*time.Millisecond)); err != nil {
			return got, err
		}
		time.Sleep(50 * time.Millisecond) // releases run concurrently with requests
		after, err := asked()
		got.asked = after - before
		return got, err
	}}
}

// gaps are the times, in ms, from the end of one script's work on a session to
// the start of the next one's.
type gaps struct {
	all    series
	gaveUp int
}

// measureHandOffs has the hosts' clients want one session by turns.
func (f *fleet) measureHandOffs() ([]row, error) {
	var hosts []*host
	for i := range 2 {
		h, err := f.startHost(fmt.Sprintf("host %d", i+1), recommended.upstream)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	php := rig.PHPOptions{Workers: workers, INI: f.unlocked.ini}
	local, err := f.startChain("one host, local locks", php, &recommended)
	if err != nil {
		return nil, err
	}
	between := f.gapsSide("between hosts", hosts[0].site, hosts[1].site)
	within := f.gapsSide("within a host", hosts[0].site)
	alone := f.gapsSide("within a host, local locks", local.site)
	sides := []*side[gaps]{between, within, alone}
	for _, h := range f.handlers[1:3] {
		var sites []*rig.Site
		for range 2 {
			c, err := f.startChain(h.name, rig.PHPOptions{Workers: workers, INI: h.ini}, nil)
			if err != nil {
				return nil, err
			}
			sites = append(sites, c.site)
		}
		sides = append(sides, f.gapsSide(h.name, sites...))
	}
	if err := interleave(f.plan("40 requests of a session on two hosts", 15), sides...); err != nil {
		return nil, err
	}
	rows := []row{
		gapsRow("Hand-off between hosts, p50", between, sides[3], 50, atMostOf(5, "ms")),
		gapsRow("the same, p99", between, sides[3], 99, atMostOf(60, "ms")),
		gapsRow("the same, p50", between, sides[4], 50, noTarget),
		gapsRow("the same, p99", between, sides[4], 99, noTarget),
		gapsRow("Hand-off on one host, p50", within, alone, 50, noTarget),
		gapsRow("the same, p99", within, alone, 99, noTarget),
	}
	return rows, nil
}

// gapsRow compares a percentile of all hand-offs of all rounds; the ratios are of the rounds'.
func gapsRow(what string, gate, other *side[gaps], percent float64, t target) row {
	pooled := func(s *side[gaps]) (all series, gaveUp int) {
		for _, g := range s.rounds {
			all, gaveUp = append(all, g.all...), gaveUp+g.gaveUp
		}
		return all, gaveUp
	}
	of1 := func(g gaps) float64 { return g.all.percentile(percent) }
	with, _ := pooled(gate)
	without, gaveUp := pooled(other)
	r := row{
		what:   what,
		gate:   number(with.percentile(percent)) + " ms",
		other:  number(without.percentile(percent)) + " ms: " + other.name,
		ratios: of(gate, of1).over(of(other, of1)),
		value:  with.percentile(percent),
		target: t,
	}
	if gaveUp > 0 {
		r.other += fmt.Sprintf("; %d of %d gave up", gaveUp, handoffs*len(other.rounds))
	}
	return r
}

func (f *fleet) gapsSide(name string, sites ...*rig.Site) *side[gaps] {
	return &side[gaps]{name: name, measure: func() (gaps, error) { return f.gaps(sites) }}
}

// stint is one script's work on the session.
type stint struct{ begin, end int64 }

func (f *fleet) gaps(sites []*rig.Site) (got gaps, err error) {
	session := f.session()
	var mu sync.Mutex
	var stints []stint
	err = together(handoffs, func(i int) error {
		b, err := openBrowser(f.ctx, sites[i%len(sites)])
		if err != nil {
			return err
		}
		defer b.close()
		body, err := b.get(fleetScript, session)
		if err != nil {
			return err
		}
		var had int
		var s stint
		if _, err := fmt.Sscan(string(body), &had, &s.begin, &s.end); err != nil {
			return fmt.Errorf("read %q of %s: %w", body, fleetScript, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if had == 0 {
			got.gaveUp++
		} else {
			stints = append(stints, s)
		}
		return nil
	})
	slices.SortFunc(stints, func(a, b stint) int { return int(a.begin - b.begin) })
	for i := 1; i < len(stints); i++ {
		got.all = append(got.all, millis(time.Duration(stints[i].begin-stints[i-1].end)))
	}
	return got, err
}

// measureWaiting has a host wait for many sessions that another one holds. That
// one has a single connection to PHP-FPM: all but one of its requests have their
// locks and wait for it.
func (f *fleet) measureWaiting() (row, error) {
	n := full(f.stage, fleetWaiting, 20)
	seconds := full(f.stage, 5, 1)
	holder, err := f.startHost("the holder", "max_connections = 1\n    queue_timeout = \"2m\"")
	if err != nil {
		return row{}, err
	}
	waiter, err := f.startHost("the one who waits", recommended.upstream)
	if err != nil {
		return row{}, err
	}
	var held sync.WaitGroup
	defer held.Wait()
	sessions := make([]string, n)
	hold := func(site *rig.Site, session, path string) {
		held.Go(func() { _ = ask(f.ctx, site, path, session) })
	}
	hold(holder.site, f.session(), fmt.Sprintf("/sleep.php?s=%d", 2*seconds+8))
	for i := range sessions {
		sessions[i] = f.session()
		hold(holder.site, sessions[i], "/hello.php")
	}
	time.Sleep(full(f.stage, 3*time.Second, 300*time.Millisecond)) // until they have their locks
	for _, session := range sessions {
		hold(waiter.site, session, "/hello.php")
	}
	time.Sleep(full(f.stage, 3*time.Second, 300*time.Millisecond)) // until they wait
	start := time.Now()
	before, err := waiter.asked()
	if err != nil {
		return row{}, err
	}
	time.Sleep(time.Duration(seconds) * time.Second)
	after, err := waiter.asked()
	perSecond := (after - before) / time.Since(start).Seconds()
	return row{
		what:   fmt.Sprintf("Questions per second, %d sessions waited for", n),
		gate:   number(perSecond),
		other:  "max_poll_rate, and each of them one to stay in line",
		value:  perSecond,
		target: atMostOf(float64(10_000+n), "/s"),
	}, err
}
