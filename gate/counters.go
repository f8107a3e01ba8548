package gate

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// counter counts events, concurrently.
type counter = atomic.Uint64

// counters count what a gate has seen since it was created.
type counters struct {
	requests, none, acquired, passed, observed      counter
	local, expired, lost, locksBroken, connsRefused counter
	givenAway, unread                               counter
	reopened, mismatched                            counter
	interrupted, terminated, unterminated           counter

	mu     sync.Mutex
	routes map[string]*routeCounters // by name; "": requests that match none. Entries stay until the gate ends
}

// routeCounters count the requests of one route.
type routeCounters struct {
	outcomes [Outcomes]counter
	slow     counter
}

// route returns the counters of a route. A reload does not reset them.
func (c *counters) route(name string) *routeCounters {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.routes == nil {
		c.routes = make(map[string]*routeCounters)
	}
	if c.routes[name] == nil {
		c.routes[name] = new(routeCounters)
	}
	return c.routes[name]
}

// RouteStats count the requests of one route.
type RouteStats struct {
	Name     string           // "": the requests that match no route
	Outcomes [Outcomes]uint64 // how many requests ended with each Outcome
	Slow     uint64           // how many took Options.SlowRequest, or have taken it already
}

// routeStats returns the counts of each route.
func (c *counters) routeStats() []RouteStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []RouteStats
	for _, name := range slices.Sorted(maps.Keys(c.routes)) {
		r := RouteStats{Name: name, Slow: c.routes[name].slow.Load()}
		for outcome := range r.Outcomes {
			r.Outcomes[outcome] = c.routes[name].outcomes[outcome].Load()
		}
		all = append(all, r)
	}
	return all
}
