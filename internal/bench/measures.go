package main

// measure is a part of the benchmark with servers of its own.
type measure struct {
	name  string
	needs []string // programs, as the rig calls them
	run   func(*stage) ([]row, error)
}

// measures are all there are, in the order of the document.
var measures = []measure{
	{"cpu", []string{"nginx", "nginx-stream", "php-fpm"}, measureCPU},
	{"throughput", []string{"nginx", "php-fpm"}, measureThroughput},
	{"storm", withStores, measureStorm},
	{"handoff", withStores, measureHandoff},
	{"fleet", withStores, measureFleet},
	{"watch", []string{"nginx", "php-fpm"}, measureWatch},
	{"closed", []string{"nginx", "php-fpm", "redis-server", "php-redis"}, measureClosed},
	{"waiting", []string{"nginx", "php-fpm"}, measureWaiting},
	{"memory", []string{"php-fpm"}, measureMemory},
	{"bytes", []string{"nginx", "nginx-stream", "php-fpm"}, measureBytes},
}

var withStores = []string{"nginx", "php-fpm", "memcached", "redis-server", "php-memcached", "php-redis"}

// names are what -only takes.
func names() []string {
	all := make([]string, len(measures))
	for i, m := range measures {
		all[i] = m.name
	}
	return all
}
