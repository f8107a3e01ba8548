package memcached

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/fpm-gate/fpm-gate/internal/kv"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// Report is what a probe has found out about a server.
type Report struct {
	Server  string        // its address
	Err     error         // it cannot be used; the rest is what was found out before
	Version string        // such as 1.6.18
	Answer  time.Duration // the time of one question, the shortest of some
	Uptime  time.Duration

	Memory    int64 // bytes that it may use for items
	Used      int64 // of them, by now
	Evictions int64 // items that had to go before their TTL, since it was started

	Lived    time.Duration // how long an item of probeSeconds lived, as far as it was looked at
	Warnings []string      // why locks may be lost there

	Before, After *kv.Item // the item that is read along, as it was first and last read
}

// An item of probeSeconds has to live for a second less, and to be gone two seconds later than promised at most: on a
// busy machine both clocks tick late.
const (
	probeSeconds = 3
	probeSlack   = 2 * time.Second
	probeLook    = 20 * time.Millisecond
)

// Probe asks one server whether it is fit for locks, with items whose names begin with prefix, and leaves nothing
// there. It comes back after four seconds, after six if the server keeps items for too long, or when ctx is done. The
// item named also is read twice, with alsoAfter in between.
func Probe(ctx context.Context, a netaddr.Addr, o Options, prefix, also string, alsoAfter time.Duration) (r Report) {
	v := New(a, o, kv.Hooks{})
	r.Server = v.Name()
	dialCtx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	nc, err := v.connect(dialCtx)
	if err != nil {
		r.Err = fmt.Errorf("dial: %w", err)
		return r
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	p := &probe{wire: newWire(nc), nc: nc, server: v, prefix: prefix, also: also, alsoAfter: alsoAfter, report: &r}
	for _, step := range []func() error{p.authenticate, p.figures, p.settings, p.speed, p.oneServer, p.lifetime} {
		if r.Err = step(); r.Err != nil {
			if ctx.Err() != nil {
				r.Err = context.Cause(ctx)
			}
			return r
		}
	}
	return r
}

// probe is a probe on its way.
type probe struct {
	*wire
	server    *Server
	nc        net.Conn
	prefix    string
	also      string
	alsoAfter time.Duration
	report    *Report
}

// limit bounds the next round trip.
func (p *probe) limit() { _ = p.nc.SetDeadline(time.Now().Add(p.server.options.Timeout)) }

func (p *probe) warn(format string, args ...any) {
	p.report.Warnings = append(p.report.Warnings, fmt.Sprintf(format, args...))
}

// authenticate logs in, if there is a password. A memcached with -Y refuses every other command before.
func (p *probe) authenticate() error {
	o := p.server.options
	if o.Username == "" {
		return nil
	}
	p.limit()
	if err := p.wire.authenticate(o.Username, o.Password); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	return nil
}

// figures reads what the server counts. Evictions are the danger to locks: memcached removes items that are still valid
// when its memory is full.
func (p *probe) figures() error {
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
		p.warn("it has evicted %d items in %v: locks may be among them; give it more memory, or use a dedicated memcached"+
			" for locks", r.Evictions, r.Uptime)
	} else if r.Memory > 0 && r.Used > r.Memory/10*9 {
		p.warn("%d of its %d bytes are used: it will evict soon, and locks may be among what it evicts", r.Used, r.Memory)
	}
	used, limit := number(figures["curr_connections"]), number(figures["max_connections"])
	if limit > 0 && limit-used < 2*maxConns {
		p.warn("it has %d of at most %d connections; a gate needs up to %d", used, limit, maxConns)
	}
	return nil
}

// settings looks for options that make a server unfit for locks.
func (p *probe) settings() error {
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
func (p *probe) speed() error {
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
	if timeout := p.server.options.Timeout; p.report.Answer > timeout/probeTrips {
		p.warn("a round trip takes %v: with a timeout of %v there is no time for a new connection and a lock; raise it",
			p.report.Answer.Round(time.Millisecond), timeout)
	}
	return nil
}

// probeTrips is how many round trips a lock may take over a new connection, with TLS and a password.
const probeTrips = 5

// oneServer looks for an item over other connections: there may be several servers at one address.
func (p *probe) oneServer() error {
	name := p.prefix + "probe:" + rand.Text()
	p.limit()
	if err := p.write(&kv.Item{Name: name, Value: []byte("probe"), TTL: probeSeconds * time.Second}); err != nil {
		return fmt.Errorf("add an item: %w", err)
	}
	// Behind a balancer each connection may lead to another server. With two of them, four look like one in 1 of 16
	// probes.
	for range 4 {
		found, err := p.elsewhere(name)
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
func (p *probe) elsewhere(name string) (found bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.server.options.Timeout)
	defer cancel()
	nc, err := p.server.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer nc.Close()
	// Without a report: it only logs in and reads.
	other := &probe{wire: newWire(nc), nc: nc, server: p.server}
	if err := other.authenticate(); err != nil {
		return false, err
	}
	items, err := other.get(name)
	return err == nil && items[0] != nil, err
}

// lifetime watches an item until it is gone.
func (p *probe) lifetime() error {
	name := p.prefix + "probe:" + rand.Text()
	p.limit()
	start := time.Now() // the item began to live after start and before added
	if err := p.write(&kv.Item{Name: name, Value: []byte("probe"), TTL: probeSeconds * time.Second}); err != nil {
		return fmt.Errorf("add an item: %w", err)
	}
	added := time.Now()
	defer p.readAgain(added)
	p.report.Before, _ = p.readAlong()
	for time.Since(added) < probeSeconds*time.Second+probeSlack {
		time.Sleep(probeLook)
		p.limit()
		items, err := p.get(name)
		if err != nil {
			return fmt.Errorf("look for an item: %w", err)
		}
		if items[0] != nil {
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

// readAgain reads the item that is read along until alsoAfter has passed. The item that is watched may be gone long
// before: on a busy machine one of three seconds has lived for 1.5.
func (p *probe) readAgain(since time.Time) {
	for {
		it, err := p.readAlong()
		if err != nil {
			return
		}
		p.report.After = it
		if time.Since(since) >= p.alsoAfter {
			return
		}
		time.Sleep(probeLook)
	}
}

// readAlong reads the item named also, as it is now; nil: there is none.
func (p *probe) readAlong() (*kv.Item, error) {
	p.limit()
	items, err := p.get(p.also)
	if err != nil {
		return nil, err
	}
	return items[0], nil
}

// number is zero of what is no number.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
