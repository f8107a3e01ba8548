package gate

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/fpm-gate/fpm-gate/netaddr"
	"github.com/fpm-gate/fpm-gate/phpworker"
)

// power is whether a gate can end the scripts that its config has it end. It logs when that changes.
type power struct {
	log     hclog.Logger
	keys    string // of the config, which have it end scripts; empty: it need not
	workers *Workers
	addrs   []netaddr.Addr

	mu      sync.Mutex
	lacking bool // when it was checked last
}

func newPower(o *Options, log hclog.Logger) *power {
	return &power{log: log, keys: o.TerminatingKeys(), workers: o.Workers, addrs: o.Upstream.Addrs}
}

// TerminatingKeys returns the keys of a config that have the gate end scripts, for texts; empty: none does.
func (o *Options) TerminatingKeys() string {
	policies := []Policy{o.Policy}
	for _, route := range o.Routes {
		policies = append(policies, route.Policy)
	}
	var expiry, abandon bool
	for _, p := range policies {
		locks := p.Mode == Exclusive && !p.Observe
		expiry = expiry || locks && p.OnExpiry == OverdueTerminate
		abandon = abandon || locks && p.OnAbandon == OverdueTerminate
	}
	var keys []string
	if expiry {
		keys = append(keys, `on_expiry = "terminate"`)
	}
	if abandon {
		keys = append(keys, `on_abandon = "terminate"`)
	}
	return strings.Join(keys, " and ")
}

// check returns why the gate cannot end scripts although it should; nil if it can, or need not.
func (p *power) check() error {
	if p.keys == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.missing()
	if err != nil {
		err = fmt.Errorf("%s cannot end scripts: %w. Until that is mended, a stuck script goes on without its lock, and"+
			" keeps PHP's own; docs/WORKERS.md has the rights that it takes", p.keys, err)
	}
	switch lacking := err != nil; {
	case lacking && !p.lacking:
		p.log.Warn(err.Error())
	case !lacking && p.lacking:
		p.log.Info(p.keys + " can end scripts now")
	}
	p.lacking = err != nil
	return err
}

// missing is what it lacks to end scripts. What a single worker is like does not count.
func (p *power) missing() error {
	if p.workers == nil {
		return errNoWorkers
	}
	if err := p.workers.ready(); err != nil {
		return err
	}
	for _, a := range p.addrs {
		if err := p.workers.Failing(a); err != nil && !errors.Is(err, phpworker.ErrHelper) {
			return fmt.Errorf("upstream %s: %w", a, err)
		}
	}
	return nil
}
