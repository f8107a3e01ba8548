package memcachelock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// Report is what a probe has found out about a server.
type Report struct {
	Server  Addr
	Err     error         // it cannot be used; the rest is what was found out before
	Version string        // such as 1.6.18
	Answer  time.Duration // the time of one question, the shortest of some
	Uptime  time.Duration

	Memory    int64 // bytes that it may use for items
	Used      int64 // of them, by now
	Evictions int64 // items that had to go before their TTL, since it was started

	Lived    time.Duration // how long an item of probeSeconds lived, as far as it was looked at
	Warnings []string      // why locks may be lost there
}

// An item of probeSeconds has to live for a second less, and to be gone two seconds later than promised at most: on a
// busy machine both clocks tick late.
const (
	probeSeconds = 3
	probeSlack   = 2 * time.Second
	probeLook    = 20 * time.Millisecond
)

// Probe asks each server of o whether it is fit for locks, all of them at once, and comes back after four seconds,
// after six if a server keeps items for too long, or when ctx is done. It leaves nothing there. The reports are in the order of the servers.
func Probe(ctx context.Context, o Options) ([]Report, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Store{options: o, seconds: seconds(o.Lease)}
	s.Relabel(o.Gate, o.Realms)
	for i, a := range o.Servers {
		s.members = append(s.members, newMember(s, a, i))
	}
	reports := make([]Report, len(o.Servers))
	var all sync.WaitGroup
	for i, m := range s.members {
		reports[i].Server = m.addr
		all.Go(func() { reports[i].probe(ctx, m) })
	}
	all.Wait()
	return reports, nil
}

func (r *Report) probe(ctx context.Context, m *member) {
	timeout := m.options.timeout
	dialCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := m.connect(dialCtx)
	if err != nil {
		r.Err = fmt.Errorf("dial: %w", err)
		return
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	p := &probe{wire: newWire(nc), nc: nc, member: m, timeout: timeout, report: r}
	for _, step := range []func(Options) error{p.authenticate, p.figures, p.settings, p.speed, p.oneServer, p.lifetime} {
		if r.Err = step(m.store.options); r.Err != nil {
			if ctx.Err() != nil {
				r.Err = context.Cause(ctx)
			}
			return
		}
	}
}

// probe is a probe on its way.
type probe struct {
	*wire
	member  *member
	nc      net.Conn
	timeout time.Duration
	report  *Report
}

func (p *probe) limit() { _ = p.nc.SetDeadline(time.Now().Add(p.timeout)) }

func (p *probe) warn(format string, args ...any) {
	p.report.Warnings = append(p.report.Warnings, fmt.Sprintf(format, args...))
}

func (p *probe) authenticate(o Options) error {
	if o.Username == "" {
		return nil
	}
	p.limit()
	if err := p.wire.authenticate(o.Username, o.Password); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	return nil
}

func (p *probe) figures(Options) error {
	p.limit()
	figures, err := p.stats("")
	if err != nil {
		return fmt.Errorf("read its stats: %w", err)
	}
	r := p.report
	r.Version = figures["version"]
	r.Uptime = time.Duration(number(figures["uptime"])) * time.Second
	r.Memory, r.Used = number(figures["limit_maxbytes"]), number(figures["bytes"])
	r.Evictions = number(figures["evictions"])
	if r.Evictions > 0 {
		p.warn("it has evicted %d items in %v: locks may be among them; give it more memory, or the locks a memcached of their own",
			r.Evictions, r.Uptime)
	} else if r.Memory > 0 && r.Used > r.Memory/10*9 {
		p.warn("%d of its %d bytes are used: it will evict soon, and locks may be among what it evicts", r.Used, r.Memory)
	}
	if used, limit := number(figures["curr_connections"]), number(figures["max_connections"]); limit > 0 && limit-used < 2*maxConns {
		p.warn("it has %d of at most %d connections; a gate needs up to %d", used, limit, maxConns)
	}
	return nil
}

func (p *probe) settings(Options) error {
	p.limit()
	settings, err := p.stats("settings")
	if err != nil {
		return fmt.Errorf("read its settings: %w", err)
	}
	if settings["cas_enabled"] == "no" {
		return errors.New("it was started with -C: without CAS a lock cannot be released")
	}
	if settings["evictions"] == "off" {
		p.warn("it was started with -M: when its memory is full it refuses new locks")
	}
	return nil
}

// speed takes the shortest of some answers: the way there and back, without what else is going on.
func (p *probe) speed(Options) error {
	for range 5 {
		p.limit()
		start := time.Now()
		if _, err := p.line("version"); err != nil {
			return fmt.Errorf("ask its version: %w", err)
		}
		if took := time.Since(start); p.report.Answer == 0 || took < p.report.Answer {
			p.report.Answer = took
		}
	}
	if p.report.Answer > p.timeout/probeTrips {
		p.warn("a round trip takes %v: with a timeout of %v there is no time for a new connection and a lock; raise it",
			p.report.Answer.Round(time.Millisecond), p.timeout)
	}
	return nil
}

// probeTrips is how many round trips a lock may take over a new connection, with TLS and a password.
const probeTrips = 5

// oneServer looks for an item over other connections: there may be several servers at one address.
func (p *probe) oneServer(o Options) error {
	name := o.Prefix + "probe:" + rand.Text()
	p.limit()
	if err := p.write(&item{name: name, value: []byte("probe"), seconds: probeSeconds}); err != nil {
		return fmt.Errorf("add an item: %w", err)
	}
	for range 4 {
		found, err := p.elsewhere(o, name)
		if err != nil {
			return err
		}
		if !found {
			return errSplit
		}
	}
	return nil
}

// elsewhere looks for an item over a connection of its own.
func (p *probe) elsewhere(o Options, name string) (found bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	nc, err := p.member.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer nc.Close()
	other := &probe{wire: newWire(nc), nc: nc, timeout: p.timeout}
	if err := other.authenticate(o); err != nil {
		return false, err
	}
	items, err := other.get(name)
	return items[name] != nil, err
}

// lifetime watches an item until it is gone.
func (p *probe) lifetime(o Options) error {
	name := o.Prefix + "probe:" + rand.Text()
	p.limit()
	start := time.Now()
	if err := p.write(&item{name: name, value: []byte("probe"), seconds: probeSeconds}); err != nil {
		return fmt.Errorf("add an item: %w", err)
	}
	fleetName := p.member.store.fleetName()
	before := map[string]*item(nil)
	defer func() { p.fleet(before[fleetName]) }()
	added := time.Now()
	for time.Since(added) < probeSeconds*time.Second+probeSlack {
		time.Sleep(probeLook)
		p.limit()
		items, err := p.get(name, fleetName)
		if err != nil {
			return fmt.Errorf("look for an item: %w", err)
		}
		if before == nil {
			before = items
		}
		if items[name] != nil {
			p.report.Lived = time.Since(start)
			continue
		}
		if gone := time.Since(start); gone < (probeSeconds-1)*time.Second {
			p.warn("an item with a TTL of %d s was gone after %v: locks may be lost", probeSeconds, gone.Round(time.Millisecond))
		}
		return nil
	}
	p.warn("an item with a TTL of %d s was still there after %v: locks of dead gates may live too long",
		probeSeconds, time.Since(added).Round(time.Millisecond))
	return nil
}

// fleet compares what hosts have noted with what this one would, as far as they have refreshed it since it was first
// read: there they are alive.
func (p *probe) fleet(before *item) {
	name := p.member.store.fleetName()
	p.limit()
	items, err := p.get(name)
	if err != nil {
		return
	}
	own := p.member.fleet.own()
	first := stampsOf(before)
	for _, n := range parseFleet(items[name]) {
		if stamp, old := first[n.settings]; old && stamp == n.stamp {
			continue
		}
		if how := own.differ(n); how != "" {
			p.warn("host %s keeps the same locks in another way: %s", n.host, how)
		}
	}
}

// number is zero of what is no number.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
