package memcachelock

import (
	"context"
	"sync"

	"github.com/fpm-gate/fpm-gate/internal/memcached"
)

// Report is what a probe has found out about a server.
type Report = memcached.Report

// Probe asks each server of o whether it is fit for locks, all of them at once, and comes back after four seconds,
// after six if a server keeps items for too long, or when ctx is done. It leaves nothing there. The reports are in the
// order of the servers.
func Probe(ctx context.Context, o Options) ([]Report, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := new(Store)
	s.options, s.members = o, make([]*member, len(o.Servers)) // which are only counted
	s.Relabel(o.Gate, o.Realms)
	reports := make([]Report, len(o.Servers))
	var all sync.WaitGroup
	for i, a := range o.Servers {
		all.Go(func() {
			r := memcached.Probe(ctx, a, o.forServers(), o.Prefix, o.Prefix+fleetSuffix)
			r.Warnings = append(r.Warnings, newFleetWatch(&s.cluster, i, nil).differing(r.Before, r.After)...)
			reports[i] = r
		})
	}
	all.Wait()
	return reports, nil
}
