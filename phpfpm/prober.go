package phpfpm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fpm-gate/fpm-gate/fcgi"
	"github.com/fpm-gate/fpm-gate/netaddr"
)

// ProbeOptions configure a Prober. Without a path it does nothing.
type ProbeOptions struct {
	PingPath   string
	StatusPath string
	Interval   time.Duration // between probes, and the longest that one may take
	// Changed is called when the health of an address changes, with the reason unless it is Healthy. It may be nil.
	Changed func(netaddr.Addr, fcgi.Health, error)
}

// Pool has the connections to the addresses of a Prober, and hears how these are. An fcgi.Pool is one.
type Pool interface {
	// IsBusy reports whether requests of the pool use an address.
	IsBusy(netaddr.Addr) bool
	// SetHealth records the result of a ping, and reports whether it has changed.
	SetHealth(netaddr.Addr, fcgi.Health) (changed bool)
}

// Prober probes each address of a pool periodically. Stop ends it.
type Prober struct {
	pool     Pool
	options  ProbeOptions
	life     context.Context // ended by Stop
	stop     context.CancelFunc
	running  sync.WaitGroup
	mu       sync.Mutex
	statuses map[netaddr.Addr]Status
}

// StartProber starts to probe the addresses of pool.
func StartProber(pool Pool, addrs []netaddr.Addr, options ProbeOptions) *Prober {
	p := &Prober{pool: pool, options: options, statuses: make(map[netaddr.Addr]Status)}
	p.life, p.stop = context.WithCancel(context.Background())
	if options.PingPath == "" && options.StatusPath == "" {
		return p
	}
	for _, a := range addrs {
		p.running.Go(func() { p.watch(a) })
	}
	return p
}

// Stop ends the probing, including a probe in progress, and waits for that. It can be called again.
func (p *Prober) Stop() {
	p.stop()
	p.running.Wait()
}

// Statuses returns the last status page of each address, if there was one.
func (p *Prober) Statuses() map[netaddr.Addr]Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[netaddr.Addr]Status, len(p.statuses))
	for a, s := range p.statuses {
		all[a] = s
	}
	return all
}

// watch probes one address until Stop.
func (p *Prober) watch(a netaddr.Addr) {
	tick := time.NewTicker(p.options.Interval)
	defer tick.Stop()
	for p.life.Err() == nil { // a tick may be due as well
		p.probe(a)
		select {
		case <-tick.C:
		case <-p.life.Done():
		}
	}
}

// probe requests both pages of an address. A status page that cannot be read is forgotten, so that no metric shows the
// figures of a PHP-FPM that has gone.
func (p *Prober) probe(a netaddr.Addr) {
	if p.options.PingPath != "" {
		p.ping(a)
	}
	if p.options.StatusPath != "" {
		s, err := QueryStatus(p.life, a, p.options.StatusPath, p.options.Interval)
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil {
			delete(p.statuses, a)
			return
		}
		p.statuses[a] = s
	}
}

// ping pings an address. That all workers are busy with requests of the pool is no failure: marking the address as down
// would send its requests to the others, which may be as busy.
func (p *Prober) ping(a netaddr.Addr) {
	busy := p.pool.IsBusy(a) // before and after the ping: its requests may have ended, or begun, meanwhile
	err := Ping(p.life, a, p.options.PingPath, p.options.Interval)
	if p.life.Err() != nil {
		return // stopped, which says nothing about the address
	}
	health := fcgi.Healthy
	switch {
	case err == nil:
	case errors.Is(err, ErrNoAnswer) && (busy || p.pool.IsBusy(a)):
		health = fcgi.Busy
	default:
		health = fcgi.Failing
	}
	// Changed is called on a change only, so that a PHP-FPM that stays away is logged once.
	if p.pool.SetHealth(a, health) && p.options.Changed != nil {
		p.options.Changed(a, health, err)
	}
}
