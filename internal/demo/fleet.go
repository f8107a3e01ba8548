package demo

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// The fifth part: two hosts behind a load balancer, which share their sessions.
const (
	fleetHosts    = 2
	fleetRequests = 40
	fleetWork     = 50 * time.Millisecond
)

func (s *story) fleets(ctx context.Context) (err error) {
	s.progress.begin()
	f := &Fleet{Requests: fleetRequests}
	s.figures.Fleet = f
	sessions, skipped, err := s.memcached()
	if err != nil || skipped != "" {
		f.Skipped = skipped
		return err
	}
	sessions = maps.Clone(sessions)
	sessions["memcached.sess_locking"] = "0"
	alone, err := s.hosts("5a", conditions{ini: sessions})
	if err != nil {
		return err
	}
	defer alone.stop(&err)
	shared, err := s.hosts("5b", conditions{ini: sessions, gateSettings: `lock { store = "memcached" }`,
		gateConfig: fmt.Sprintf("memcached { servers = [%q] }\n", sessions["session.save_path"])})
	if err != nil {
		return err
	}
	defer shared.stop(&err)
	for _, run := range []struct {
		what  string
		hosts []*side
		to    *FleetSide
	}{
		{"no gate", alone.without(), &f.Without},
		{"a gate each", alone.with(), &f.Alone},
		{"gates that share their locks", shared.with(), &f.With},
	} {
		s.progress.step("%d requests on %d hosts, %s", fleetRequests, fleetHosts, run.what)
		if *run.to, err = fleetOn(ctx, run.hosts); err != nil {
			return fmt.Errorf("%s: %w", run.what, err)
		}
	}
	return nil
}

// hosts are the stages of a fleet: each its own web server, gate and PHP-FPM.
type hosts [fleetHosts]*stage

func (s *story) hosts(name string, c conditions) (h *hosts, err error) {
	h = new(hosts)
	for i := range h {
		if h[i], err = s.stage(fmt.Sprintf("%s%d", name, i+1), c); err != nil {
			h.stop(&err)
			return nil, err
		}
	}
	return h, nil
}

func (h *hosts) stop(err *error) {
	for _, st := range h {
		if st != nil {
			st.stop(err)
		}
	}
}

func (h *hosts) without() (sides []*side) {
	for _, st := range h {
		sides = append(sides, st.without)
	}
	return sides
}

func (h *hosts) with() (sides []*side) {
	for _, st := range h {
		sides = append(sides, st.with)
	}
	return sides
}

// fleetOn measures a burst of one session that a load balancer spreads over the hosts in turn.
func fleetOn(ctx context.Context, hosts []*side) (f FleetSide, err error) {
	var first *visitor
	tabs := make([]*visitor, len(hosts)) // of one browser
	for i, sd := range hosts {
		if err := sd.warmUp(ctx); err != nil {
			return f, err
		}
		if tabs[i] = (&visitor{site: sd.url, client: newClient()}); i == 0 {
			if first, err = newVisitor(ctx, sd); err != nil {
				return f, err
			}
		}
		tabs[i].cookie = first.cookie
		defer tabs[i].leave()
	}
	defer first.leave()
	began := time.Now()
	answers := make([]answer, fleetRequests)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = tabs[i%len(tabs)].get(ctx, workPage(fleetWork)) })
	}
	all.Wait()
	f.Total, f.Answers = millis(time.Since(began)), byStatus(answers)
	f.Lost, err = lostUpdates(ctx, first, answers)
	return f, err
}
