package gate

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// counter counts events, from many goroutines.
type counter = atomic.Uint64

// counters are what a gate has seen since it was made.
type counters struct {
	requests, none, acquired, passed, observed counter
	local, expired, lost, broken, malformed    counter
	givenAway, unread                          counter

	mu     sync.Mutex
	routes map[string]*routeCounters // by their names; "": requests that match none. None is ever forgotten
}

// routeCounters are what a gate has seen of one route.
type routeCounters struct {
	outcomes [Outcomes]counter
}

// route returns the counters of a route, which a reload does not set to zero.
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

// RouteStats are what a gate has seen of the requests of one route.
type RouteStats struct {
	Name     string           // "": of requests that match no route
	Outcomes [Outcomes]uint64 // how many of them ended in which way
}

// routeStats returns what was seen of each route so far.
func (c *counters) routeStats() []RouteStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []RouteStats
	for _, name := range slices.Sorted(maps.Keys(c.routes)) {
		r := RouteStats{Name: name}
		for outcome := range r.Outcomes {
			r.Outcomes[outcome] = c.routes[name].outcomes[outcome].Load()
		}
		all = append(all, r)
	}
	return all
}
